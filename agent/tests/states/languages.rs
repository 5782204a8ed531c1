//! Whatever language the caller speaks, what is told is the same: the states are read again by this test's own program, started
//! in other languages.

use std::path::Path;
use std::process::Command;

use crate::rpms::is_possible;
use crate::state::{State, run};
use crate::{apt, dnf, zypper};

const LANGUAGES: [(&str, &str); 3] = [("de_DE", "de"), ("fr_FR", "fr"), ("ja_JP", "ja")];
const STATES_IN_A_LANGUAGE: &str = "languages::states_in_the_language_of_the_caller";
/// Of each package manager, those that say most.
const STATES: [(&str, &str); 4] = [
    ("apt", "blocked"),
    ("apt", "broken"),
    ("dnf", "advisories"),
    ("zypper", "patches"),
];

#[test]
#[ignore = "run by the next test, in languages"]
fn states_in_the_language_of_the_caller() {
    for (folder, name) in STATES {
        if folder != "apt" && !is_possible() {
            continue;
        }
        let states = State::all(folder);
        let state = states.iter().find(|state| state.name == name).unwrap();
        let answer = match folder {
            "apt" => apt::check(state),
            "dnf" => dnf::check(state),
            _ => zypper::check(state),
        };
        state.expect(&answer);
    }
}

#[test]
fn no_language_of_the_caller_changes_what_is_told() {
    let places = tempfile::tempdir().unwrap();
    let translated = LANGUAGES.map(|(locale, language)| {
        let name = format!("{locale}.UTF-8");
        let mut localedef = Command::new("localedef");
        localedef
            .args(["-i", locale, "-f", "UTF-8"])
            .arg(places.path().join(&name));
        run(&mut localedef, &[1]);
        let in_language = |command: &mut Command| {
            command
                .env("LOCPATH", places.path())
                .env("LANG", &name)
                .env("LC_ALL", &name)
                .env("LANGUAGE", language);
        };
        let mut help = Command::new("apt-get");
        in_language(help.arg("--help"));
        let help = run(&mut help, &[]).stdout;
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--include-ignored", "--exact", STATES_IN_A_LANGUAGE]);
        in_language(&mut again);
        let output = run(&mut again, &[]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 passed"), "{said}");
        let is_english = String::from_utf8_lossy(&help).contains("Most used commands");
        // Where the machine has no translations, there is nothing to lose.
        let has_translation = Path::new("/usr/share/locale")
            .join(language)
            .join("LC_MESSAGES/apt.mo")
            .exists();
        !is_english && has_translation
    });
    let has_any = Path::new("/usr/share/locale/de/LC_MESSAGES/apt.mo").exists();
    assert_eq!(
        translated.contains(&true),
        has_any,
        "apt speaks them: {translated:?}"
    );
}
