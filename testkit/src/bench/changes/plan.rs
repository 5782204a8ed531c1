//! A large plan, as `terraform show -json` prints one: instances, security groups, policies and databases with the
//! attributes that the AWS provider gives them. Made of numbers, so that the same size is the same plan.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

/// Attributes that are known only after apply.
const COMPUTED: [&str; 6] = [
    "arn",
    "id",
    "private_dns",
    "private_ip",
    "endpoint",
    "owner_id",
];
const ACCOUNT: &str = "123456789012";

/// Writes a plan of so many resource changes. Answers how many bytes it has.
pub fn write(path: &Path, resources: usize) -> anyhow::Result<u64> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut out = BufWriter::new(file);
    out.write_all(
        br#"{"format_version":"1.2","terraform_version":"1.9.8","variables":{"environment":{"value":"prod"}},"planned_values":{"root_module":{}},"resource_changes":["#,
    )?;
    for number in 0..resources {
        out.write_all(if number == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut out, &resource(number))?;
    }
    out.write_all(
        br#"],"configuration":{"root_module":{}},"timestamp":"2026-11-22T17:09:43Z","applyable":true,"complete":true,"errored":false}"#,
    )?;
    let file = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)?;
    Ok(file.metadata()?.len())
}

fn resource(number: usize) -> Value {
    let (kind, values, edited) = match number % 20 {
        0..6 => ("aws_instance", instance(number), "instance_type"),
        6..13 => ("aws_security_group", security_group(number), "description"),
        13..19 => ("aws_iam_policy", policy(number), "policy"),
        _ => ("aws_db_instance", database(number), "password"),
    };
    let module = format!("module.service_{}", number / 200);
    json!({
        "address": format!("{module}.{kind}.this[{number}]"), "module_address": module, "mode": "managed", "type": kind,
        "name": "this", "index": number, "provider_name": "registry.terraform.io/hashicorp/aws",
        "change": change(number, values, edited),
    })
}

/// Four of ten stay as they are, three are edited, two made, and one is destroyed.
fn change(number: usize, values: Value, edited: &str) -> Value {
    let mask = if values.get("password").is_some() {
        json!({"password": true, "tags": {}})
    } else {
        json!({"tags": {}})
    };
    let (actions, before, after, unknown) = match mixed(number, 1) % 10 {
        0..4 => ("no-op", values.clone(), values, json!({})),
        4..7 => {
            let mut after = values.clone();
            after[edited] = json!(format!(
                "{}, edited",
                after[edited].as_str().unwrap_or_default()
            ));
            after["tags"]["Revision"] = json!(format!("{:040x}", mixed(number, 2)));
            ("update", values, after, json!({}))
        }
        7..9 => {
            let mut after = values;
            let mut unknown = json!({});
            if let Some(members) = after.as_object_mut() {
                for name in COMPUTED {
                    if members.remove(name).is_some() {
                        unknown[name] = json!(true);
                    }
                }
            }
            ("create", Value::Null, after, unknown)
        }
        _ => ("delete", values, Value::Null, json!({})),
    };
    let of = |side: &Value| {
        if side.is_null() {
            json!(false)
        } else {
            mask.clone()
        }
    };
    json!({
        "actions": [actions], "before_sensitive": of(&before), "after_sensitive": of(&after), "before": before,
        "after": after, "after_unknown": unknown,
    })
}

fn instance(number: usize) -> Value {
    let (id, address) = (mixed(number, 3), private_address(number));
    json!({
        "ami": format!("ami-{:017x}", mixed(number % 40, 4)),
        "arn": format!("arn:aws:ec2:eu-central-1:{ACCOUNT}:instance/i-{id:017x}"),
        "associate_public_ip_address": false, "availability_zone": "eu-central-1a", "disable_api_termination": false,
        "ebs_optimized": true, "iam_instance_profile": format!("service-{}", number % 50),
        "id": format!("i-{id:017x}"), "instance_state": "running", "instance_type": "t3.medium", "key_name": "deploy",
        "private_dns": format!("ip-{}.eu-central-1.compute.internal", address.replace('.', "-")),
        "private_ip": address,
        "root_block_device": [{
            "delete_on_termination": true, "device_name": "/dev/xvda", "encrypted": true, "iops": 3000,
            "volume_id": format!("vol-{:017x}", mixed(number, 5)), "volume_size": 20, "volume_type": "gp3",
        }],
        "subnet_id": format!("subnet-{:017x}", mixed(number % 12, 6)), "tags": tags(number, "web"),
        "vpc_security_group_ids": [format!("sg-{:017x}", mixed(number % 300, 7))],
    })
}

fn security_group(number: usize) -> Value {
    let id = mixed(number, 8);
    let rule = |port: u64| {
        json!({"cidr_blocks": [format!("10.{}.0.0/16", port % 250)], "description": "", "from_port": port,
               "ipv6_cidr_blocks": [], "protocol": "tcp", "security_groups": [], "self": false, "to_port": port})
    };
    json!({
        "arn": format!("arn:aws:ec2:eu-central-1:{ACCOUNT}:security-group/sg-{id:017x}"),
        "description": "Managed by Terraform", "egress": [], "id": format!("sg-{id:017x}"),
        "ingress": [rule(443), rule(8000 + id % 1000)], "name": format!("service-{number}"), "owner_id": ACCOUNT,
        "tags": tags(number, "network"), "vpc_id": format!("vpc-{:017x}", mixed(number % 4, 9)),
    })
}

fn policy(number: usize) -> Value {
    let document = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"],
            "Resource": [format!("arn:aws:s3:::service-{number}"), format!("arn:aws:s3:::service-{number}/*")],
        }],
    });
    let arn = format!("arn:aws:iam::{ACCOUNT}:policy/service-{number}");
    json!({
        "arn": arn, "description": "", "id": arn, "name": format!("service-{number}"), "path": "/",
        "policy": document.to_string(), "tags": tags(number, "access"),
    })
}

/// With a secret of its own.
fn database(number: usize) -> Value {
    json!({
        "allocated_storage": 100, "arn": format!("arn:aws:rds:eu-central-1:{ACCOUNT}:db:service-{number}"),
        "endpoint": format!("service-{number}.{:012x}.eu-central-1.rds.amazonaws.com:5432", mixed(number, 10) >> 16),
        "engine": "postgres", "engine_version": "16.4", "id": format!("db-{:026X}", mixed(number, 11)),
        "instance_class": "db.t4g.large", "multi_az": true, "password": format!("{:020x}", mixed(number, 12)),
        "storage_encrypted": true, "storage_type": "gp3", "tags": tags(number, "database"), "username": "service",
    })
}

fn tags(number: usize, role: &str) -> Value {
    json!({
        "Environment": "prod", "ManagedBy": "terraform", "Name": format!("{role}-{number}"),
        "Team": format!("team-{}", number % 30),
    })
}

fn private_address(number: usize) -> String {
    format!(
        "10.{}.{}.{}",
        number / 65536 % 256,
        number / 256 % 256,
        number % 256
    )
}

/// A number that looks like any other (splitmix64).
fn mixed(number: usize, salt: u64) -> u64 {
    let mut state = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = state.wrapping_add(salt.wrapping_mul(0xd1b5_4a32_d192_ed03));
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use infratrack_collector::changes::terraform::{self, Document, Options, Table};

    use super::write;

    #[test]
    fn a_plan_is_the_same_every_time_and_one_that_a_collector_reads() {
        let dir = tempfile::tempdir().unwrap();
        let (path, again) = (dir.path().join("a"), dir.path().join("b"));
        let bytes = write(&path, 400).unwrap();
        assert_eq!(write(&again, 400).unwrap(), bytes);
        assert!((1000..1500).contains(&(bytes / 400)), "{bytes} bytes");
        let text = std::fs::read(&path).unwrap();
        assert_eq!(text, std::fs::read(&again).unwrap());
        let read = terraform::read(&text, Options::default(), &Table::with(&[])).unwrap();
        let Document::Plan(plan) = read else {
            panic!("not a plan")
        };
        let summary = plan.summary;
        let all = summary.no_op + summary.change + summary.add + summary.destroy;
        assert_eq!((all, plan.resources.len()), (400, 400));
        assert!(plan.redactions >= 20, "{}", plan.redactions);
    }
}
