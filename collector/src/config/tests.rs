use super::*;

#[test]
fn the_defaults_survive_their_own_text() {
    let text = toml::to_string(&Config::default()).expect("serializes");
    let config: Config = toml::from_str(&text).expect("parses");
    config.check().expect("valid");
    assert_eq!(toml::to_string(&config).expect("serializes"), text);
}

#[test]
fn an_unknown_setting_is_named() {
    let error = toml::from_str::<Config>("[ingest]\nwriter = 3\n").expect_err("unknown");
    assert!(
        error.to_string().contains("unknown field `writer`"),
        "{error}"
    );
}

#[test]
fn plays_come_from_every_host_unless_tags_say_from_which() {
    let parsed = |text: &str| toml::from_str::<Config>(text).expect("parses");
    assert!(Config::default().changes.takes_plays_from_every_host());
    let named = parsed("[changes]\nplays_from = ['control-node', 'role=ci']\n");
    named.check().expect("valid");
    assert!(!named.changes.takes_plays_from_every_host());
    let none = parsed("[changes]\nplays_from = []\n");
    none.check().expect("valid");
    assert!(!none.changes.takes_plays_from_every_host());
    let error = parsed("[changes]\nplays_from = ['role=*']\n").check();
    let error = error.expect_err("no tag").to_string();
    assert!(error.contains("changes.plays_from"), "{error}");
}
