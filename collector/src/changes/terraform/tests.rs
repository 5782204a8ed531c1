//! Plans, states and outcomes as Terraform and other programs write them.

use super::*;

fn plan(text: &str) -> Plan {
    match read(text.as_bytes(), Options::default(), &Table::default()) {
        Ok(Document::Plan(plan)) => *plan,
        other => panic!("{other:?}"),
    }
}

fn refused(text: &str) -> String {
    read(text.as_bytes(), Options::default(), &Table::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn what_is_no_plan_is_refused_by_what_it_is() {
    for (text, words) in [
        ("", "the document is empty"),
        (
            "$ terraform show -json p\n{}",
            "begins with other text at byte 0",
        ),
        (
            r#"{"version":4,"serial":1,"lineage":"x","resources":[]}"#,
            "this is a raw state snapshot",
        ),
        (
            r#"{"plan_format_version":"1.0","provider_schemas":{}}"#,
            "HCP Terraform's redacted rendering",
        ),
        (
            r#"{"format_version":"1.2","resource_changes":[]} Done."#,
            "more text at byte 47",
        ),
        (
            r#"{"format_version":"1.2","resource_changes":[{"addr"#,
            "cut off",
        ),
        (
            r#"{"format_version":"2.0","resource_changes":[]}"#,
            "format_version 2.0 is not known",
        ),
        (
            r#"{"format_version":"x","resource_changes":[]}"#,
            "format_version x is not known",
        ),
        (r#"{"resource_changes":[]}"#, "there is no format_version"),
        (r#"{"a":1}"#, "neither a plan nor a state"),
        ("[]", "this is a JSON list"),
        ("\"{}\"", "with quotes around"),
        (
            r#"{"@level":"info","type":"version"}"#,
            "the stream of events of `terraform plan -json`",
        ),
        (
            r#"{"format_version":"1.2","resource_changes":[{}]}"#,
            "`change` of a resource at resource_changes",
        ),
        (
            r#"{"format_version":"1.2","format_version":"1.1"}"#,
            "there twice",
        ),
    ] {
        let refusal = refused(text);
        assert!(refusal.contains(words), "{text}: {refusal}");
    }
}

/// An attribute as it is stored.
#[derive(Deserialize)]
struct Told {
    path: Vec<String>,
    what: Difference,
    before: Option<String>,
    after: Option<String>,
}

fn told_of(resource: &Resource) -> Vec<Told> {
    serde_json::from_str(resource.attributes.get()).unwrap()
}

#[test]
fn known_after_apply_is_not_deleted_and_numbers_stay_exact() {
    let plan = plan(
        r#"{"format_version":"1.2","resource_changes":[{"address":"a.b","type":"a","name":"b","change":{
            "actions":["update"],
            "before":{"id":"1","n":9007199254740993,"gone":"x","l":["a","b"],"same":0.10},
            "after":{"n":9007199254740994,"l":["a",null],"same":0.10},
            "after_unknown":{"id":true,"l":[false,true],"new":true},
            "before_sensitive":{},"after_sensitive":{}}}]}"#,
    );
    let found: Vec<_> = told_of(&plan.resources[0])
        .into_iter()
        .map(|told| {
            let (before, after) = (told.before, told.after);
            (
                told.path.join("."),
                told.what,
                before.unwrap_or_default(),
                after.unwrap_or_default(),
            )
        })
        .collect();
    let line = |path: &str, what, before: &str, after: &str| {
        (path.to_owned(), what, before.to_owned(), after.to_owned())
    };
    assert_eq!(
        found,
        [
            line("id", Difference::Unknown, "\"1\"", ""),
            line(
                "n",
                Difference::Changed,
                "9007199254740993",
                "9007199254740994"
            ),
            line("gone", Difference::Removed, "\"x\"", ""),
            line("l.1", Difference::Unknown, "\"b\"", ""),
            line("new", Difference::Unknown, "", ""),
        ]
    );
    assert_eq!(plan.summary.change, 1);
}

#[test]
fn unknown_actions_are_shown_and_a_deposed_object_is_another() {
    let plan = plan(
        r#"{"format_version":"1.1","resource_changes":[
            {"address":"a.b","change":{"actions":["no-op"],"before":null,"after":null}},
            {"address":"a.b","deposed":"00c0ffee","change":{"actions":["delete"],"before":{},"after":null}},
            {"address":"a.c","change":{"actions":["transmute"]}}]}"#,
    );
    assert_eq!(
        (
            plan.summary.no_op,
            plan.summary.destroy,
            plan.summary.unrecognised
        ),
        (1, 1, 1)
    );
    assert_eq!(plan.resources[1].deposed.as_deref(), Some("00c0ffee"));
    assert_eq!(plan.resources[2].actions, ["transmute"]);
}

#[test]
fn actions_are_told_with_what_sets_them_off_and_nothing_of_their_configuration() {
    let plan = plan(
        r#"{"format_version":"1.2","resource_changes":[],"action_invocations":[
            {"address":"action.a.x","type":"a","name":"x","config_values":{"note":"abc"},"provider_name":"p",
             "lifecycle_action_trigger":{"triggering_resource_address":"b.c","action_trigger_event":"BeforeCreate"}},
            {"address":"action.a.y","type":"a","name":"y","invoke_action_trigger":{}},
            {"address":"action.a.z"}]}"#,
    );
    let told = plan.invocations.iter().map(|one| {
        let by = one.resource.as_deref().unwrap_or_default();
        (one.address.as_str(), one.trigger.as_str(), by)
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("action.a.x", "before_create", "b.c"),
            ("action.a.y", "invoke", ""),
            ("action.a.z", "", ""),
        ]
    );
    assert!(
        !plan.artifact.text().contains("abc"),
        "{}",
        plan.artifact.text()
    );
    let counts = (plan.summary.add, plan.summary.change, plan.summary.actions);
    assert_eq!(counts, (0, 0, 3));
}

#[test]
fn values_of_plans_without_marks_are_not_kept() {
    let plan = plan(
        r#"{"format_version":"0.1","resource_changes":[{"address":"a.b","type":"aws_instance","change":{
            "actions":["update"],"before":{"x":"open-sesame","y":1},"after":{"x":"other-sesame","y":1}}}]}"#,
    );
    assert!(
        !plan.artifact.text().contains("sesame"),
        "{}",
        plan.artifact.text()
    );
    assert_eq!(told_of(&plan.resources[0])[0].path, ["x"]);
    assert!(plan.warnings[0].contains("before format 1.0"));
}

#[test]
fn of_plans_without_marks_ids_and_addresses_are_read_and_not_kept() {
    let before = r#"{"id":"i-0123412341234abcd","private_ip":"10.3.0.4","tags":{"Name":"web-1"}}"#;
    let marks = |version: &str, kind: &str, before: &str, more: &str| {
        let text = format!(
            r#"{{"format_version":"{version}","resource_changes":[{{"address":"a.b","type":"{kind}"{more},"change":{{
                "actions":["delete"],"before":{before},"after":null}}}}]}}"#
        );
        let plan = plan(&text);
        assert!(
            !plan.artifact.text().contains("infratrack_marks"),
            "{}",
            plan.artifact.text()
        );
        let is_kept = plan.artifact.text().contains("10.3.0.4");
        assert_eq!(is_kept, version == "1.2" && !before.contains("redacted"));
        plan.resources[0].marks.before.clone()
    };
    let one = |mark, value: &str| (mark, vec![value.to_owned()]);
    let wanted = Values::from([
        one(Mark::InstanceId, "i-0123412341234abcd"),
        one(Mark::PrivateAddress, "10.3.0.4"),
    ]);
    assert_eq!(marks("0.1", "aws_instance", before, ""), wanted);
    assert!(marks("0.1", "own_server", before, "").is_empty());
    // As the uploader sends it.
    let masked = r#"{"id":{"redacted":true,"changed":true}}"#;
    let beside = format!(r#","infratrack_marks":{{"before":{before}}}"#);
    assert_eq!(marks("0.1", "aws_instance", masked, &beside), wanted);
    assert!(marks("0.1", "own_server", masked, &beside).is_empty());
    assert!(marks("1.2", "aws_instance", masked, &beside).is_empty());
}

#[test]
fn what_is_marked_inside_a_value_that_becomes_unknown_or_another_type_is_masked() {
    let plan = plan(
        r#"{"format_version":"1.2","resource_changes":[{"address":"a.b","type":"a","change":{
            "actions":["update"],
            "before":{"x":{"p":"abc","q":"see"},"y":{"p":"abc","q":"see"}},
            "after":{"y":"text"},"after_unknown":{"x":true},
            "before_sensitive":{"x":{"p":true},"y":{"p":true}},"after_sensitive":{}}}]}"#,
    );
    assert!(
        !plan.artifact.text().contains("abc"),
        "{}",
        plan.artifact.text()
    );
    let kept = format!("{:?}", plan.resources[0].attributes);
    assert!(!kept.contains("abc") && kept.contains("see"), "{kept}");
    let told = told_of(&plan.resources[0]);
    let what: Vec<_> = told.iter().map(|told| told.what).collect();
    assert_eq!(what, [Difference::Unknown, Difference::Changed]);
}

/// The artifact of an update of one attribute, `x`.
fn updated(before: &str, after: &str, more: &str) -> String {
    let text = format!(
        r#"{{"format_version":"1.2","resource_changes":[{{"address":"a.b","type":"a","change":{{
            "actions":["update"],"before":{{"x":{before}}},"after":{{"x":{after}}}{more}}}}}]}}"#
    );
    plan(&text).artifact.text()
}

#[test]
fn secrets_by_name_are_found_in_documents_inside_of_texts() {
    for text in [
        r#""\n {\"password\":\"abc\"}""#,
        r#""{\"kind\":\"Secret\",\"data\":{\"k\":\"abc\"}}""#,
        r#""[{\"name\":\"x\",\"key\":\"password\",\"value\":\"abc\"}]""#,
        r#""{\"n\":1234567,\"password\":\"abc\"}""#,
        r#"{"password":"abc"}"#,
    ] {
        let more = r#","before_sensitive":{"n":true}"#;
        let artifact = updated(text, "null", more);
        assert!(!artifact.contains("abc"), "{text}: {artifact}");
    }
}

#[test]
fn what_only_looks_masked_lets_nothing_through_and_lists_keep_their_places() {
    let artifact = updated(r#"{"redacted":true,"changed":true}"#, r#""abc-abc""#, "");
    assert!(!artifact.contains("abc"), "{artifact}");
    let artifact = updated(
        "[1,2,3]",
        "[1,null,4]",
        r#","after_unknown":{"x":[false,true,false]}"#,
    );
    assert!(
        artifact.contains(r#""after":{"x":[1,null,4]}"#),
        "{artifact}"
    );
    let artifact = updated("true", r#""abc-abc""#, r#","after_sensitive":{"x":true}"#);
    assert!(!artifact.contains("abc"), "{artifact}");
}

#[test]
fn values_of_states_without_marks_are_not_kept() {
    let text = r#"{"format_version":"0.2","values":{"root_module":{"resources":[
        {"address":"a.b","type":"aws_instance","values":{"id":"i-1","x":"abc"}}]}}}"#;
    let Ok(Document::State(state)) = read(text.as_bytes(), Options::default(), &Table::default())
    else {
        panic!("a state");
    };
    assert!(
        !state.artifact.text().contains("abc"),
        "{}",
        state.artifact.text()
    );
    assert!(state.resources[0].marks.is_empty());
}
