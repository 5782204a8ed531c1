//! What `terraform show -json` and `terraform apply -json` print of the sample fleet.

use serde_json::{Value, json};
use time::Duration;

use crate::sample::member::Member;

/// The repository that all of it comes from.
pub(super) const SHOP: &str = "https://git.example.org/shop/infrastructure";
const VERSION: &str = "1.11.4";
const AWS: &str = "registry.terraform.io/hashicorp/aws";
/// What replaces what.
const SIZES: (&str, &str) = ("c6i.large", "c6i.xlarge");

/// A document, and what is known beside it.
pub(super) struct Document {
    pub(super) text: String,
    /// Of an apply.
    pub(super) exit_code: Option<i32>,
    pub(super) took: Duration,
}

/// How much of an apply was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    All,
    ButTheLast,
}

fn label(member: Member) -> String {
    let name = member.name();
    name.split('.').next().unwrap_or_default().to_owned()
}

fn instance(member: Member) -> String {
    format!("module.web.aws_instance.web[\"{}\"]", label(member))
}

fn tags(member: Member, owner: &str) -> Value {
    json!({"Name": label(member), "Owner": owner, "infratrack_host": member.name()})
}

fn resource(address: &str, kind: &str, actions: &[&str], before: &Value, after: &Value) -> Value {
    let module = address.starts_with("module.web.").then_some("module.web");
    json!({
        "address": address, "module_address": module, "mode": "managed", "type": kind,
        "name": address.rsplit('.').next().unwrap_or_default(), "provider_name": AWS,
        "change": {"actions": actions, "before": before, "after": after, "after_unknown": {}},
    })
}

fn plan(changes: &[Value], drift: &[Value]) -> Document {
    let text = json!({
        "format_version": "1.2", "terraform_version": VERSION, "applyable": true, "complete": true, "errored": false,
        "resource_changes": changes, "resource_drift": drift,
    });
    Document {
        text: text.to_string(),
        exit_code: None,
        took: Duration::seconds(21),
    }
}

/// Larger machines for these, and a rule of a firewall.
pub(super) fn resize(members: &[Member], environment: &str) -> Document {
    let size = |member: Member, size: &str| json!({"instance_type": size, "monitoring": true, "tags": tags(member, "team-shop")});
    let mut changes: Vec<_> = members
        .iter()
        .map(|member| {
            let (before, after) = (size(*member, SIZES.0), size(*member, SIZES.1));
            let address = instance(*member);
            resource(&address, "aws_instance", &["update"], &before, &after)
        })
        .collect();
    let rule = json!({
        "type": "ingress", "protocol": "tcp", "from_port": 443, "to_port": 443, "cidr_blocks": ["0.0.0.0/0"],
        "description": format!("HTTPS of {environment}"),
    });
    changes.push(resource(
        RULE,
        "aws_security_group_rule",
        &["create"],
        &Value::Null,
        &rule,
    ));
    plan(&changes, &[])
}

const RULE: &str = "aws_security_group_rule.https";

/// What its apply says.
pub(super) fn resized(members: &[Member], done: Done) -> Document {
    let mut lines = vec![json!({"@level": "info", "type": "version", "terraform": VERSION})];
    let mut tell = |address: &str, action: &str, is_done: bool| {
        let hook = json!({"resource": {"addr": address}, "action": action, "elapsed_seconds": 48});
        let end = if is_done {
            "apply_complete"
        } else {
            "apply_errored"
        };
        for kind in ["apply_start", end] {
            lines.push(json!({"@level": "info", "type": kind, "hook": hook}));
        }
    };
    tell(RULE, "create", true);
    let last = members.last().filter(|_| done == Done::ButTheLast);
    for member in members {
        tell(&instance(*member), "update", Some(member) != last);
    }
    if let Some(member) = last {
        let diagnostic = json!({
            "severity": "error", "address": instance(*member), "summary": "modifying EC2 Instance",
            "detail": "InsufficientInstanceCapacity: there is no c6i.xlarge in this zone at the moment",
        });
        lines.push(json!({"@level": "error", "type": "diagnostic", "diagnostic": diagnostic}));
    } else {
        let counts = json!({"add": 1, "change": members.len(), "remove": 0, "operation": "apply"});
        lines.push(json!({"@level": "info", "type": "change_summary", "changes": counts}));
    }
    let lines: Vec<_> = lines.iter().map(Value::to_string).collect();
    Document {
        text: lines.join("\n") + "\n",
        exit_code: Some(i32::from(last.is_some())),
        took: Duration::minutes(4),
    }
}

/// A larger volume for the first, not applied yet; and tags that somebody changed by hand at the others.
pub(super) fn volumes(databases: &[Member]) -> Document {
    let machine = |member: &Member| format!("aws_instance.db[\"{}\"]", label(*member));
    let grown = databases.iter().take(1).map(|member| {
        let size = |gib: u32| json!({"root_block_device": [{"volume_size": gib, "volume_type": "gp3"}], "tags": tags(*member, "team-data")});
        resource(&machine(member), "aws_instance", &["update"], &size(200), &size(500))
    });
    let drifted = databases.iter().skip(1).map(|member| {
        let tagged = |owner: &str| json!({"tags": tags(*member, owner)});
        resource(
            &machine(member),
            "aws_instance",
            &["update"],
            &tagged("team-data"),
            &tagged("nobody"),
        )
    });
    plan(&grown.collect::<Vec<_>>(), &drifted.collect::<Vec<_>>())
}
