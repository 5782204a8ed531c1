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
