//! Everything that a document marks as sensitive, wherever it stands.

use std::collections::HashMap;

use super::super::json::{Json, Reader};
use super::mask::Holder;
use super::secrets::Secrets;
use super::{Refusal, names};

/// Everything that is marked as sensitive anywhere.
pub(super) fn of_plan(text: &[u8]) -> Result<Secrets, Refusal> {
    let mut secrets = Secrets::default();
    let mut variables: HashMap<String, Json> = HashMap::new();
    let mut sensitive: Vec<String> = Vec::new();
    Reader::new(text).object(|name, reader| match name {
        "variables" => reader.object(|name, reader| {
            let value = reader.value()?;
            variables.insert(
                name.to_owned(),
                value.get("value").cloned().unwrap_or_default(),
            );
            Ok::<_, Refusal>(())
        }),
        "configuration" => reader.object(|name, reader| match name {
            "root_module" => of_module(reader, &mut secrets, Some(&mut sensitive)),
            "provider_config" => of_providers(reader, &mut secrets),
            _ => Ok(reader.skip()?),
        }),
        "planned_values" => of_values(reader, &mut secrets),
        "prior_state" => reader.object(|name, reader| match name {
            "values" => of_values(reader, &mut secrets),
            _ => Ok(reader.skip()?),
        }),
        "resource_changes" | "resource_drift" | "deferred_changes" => reader.array(|reader| {
            let value = reader.value()?;
            of_change(value.get("resource_change").unwrap_or(&value), &mut secrets)
        }),
        "action_invocations" | "deferred_action_invocations" => reader.array(|reader| {
            let value = reader.value()?;
            let action = value.get("action_invocation").unwrap_or(&value);
            let config = action.get("config_values");
            marked(config, action.get("config_sensitive"), &mut secrets)?;
            config.map_or(Ok(()), |config| by_name(config, &mut secrets))
        }),
        "output_changes" => reader.object(|name, reader| {
            let change = reader.value()?;
            for (side, marks) in [("before", "before_sensitive"), ("after", "after_sensitive")] {
                let value = change.get(side);
                marked(value, change.get(marks), &mut secrets)?;
                match value {
                    Some(value) if names::is_secret_name(name) => secrets.add_named(value)?,
                    Some(value) => by_name(value, &mut secrets)?,
                    None => {}
                }
            }
            Ok(())
        }),
        _ => Ok(reader.skip()?),
    })?;
    for (name, value) in &variables {
        if sensitive.contains(name) || names::is_secret_name(name) {
            secrets.add(value)?;
        }
    }
    Ok(secrets)
}

/// A module of the configuration: defaults of sensitive variables, and constants that are given to such.
fn of_module(
    reader: &mut Reader<'_>,
    secrets: &mut Secrets,
    mut names: Option<&mut Vec<String>>,
) -> Result<(), Refusal> {
    reader.object(|member, reader| match member {
        "variables" => reader.object(|name, reader| {
            let variable = reader.value()?;
            let is_sensitive = variable.get("sensitive") == Some(&Json::Bool(true));
            if is_sensitive || names::is_secret_name(name) {
                secrets.add(variable.get("default").unwrap_or(&Json::Null))?;
                if let Some(names) = &mut names {
                    names.push(name.to_owned());
                }
            }
            Ok::<_, Refusal>(())
        }),
        "module_calls" => reader.object(|_, reader| {
            let mut given = Json::Null;
            let mut inner = Vec::new();
            reader.object(|member, reader| match member {
                "expressions" => {
                    given = reader.value()?;
                    Ok::<_, Refusal>(())
                }
                "module" => of_module(reader, secrets, Some(&mut inner)),
                _ => Ok(reader.skip()?),
            })?;
            for (name, expression) in given.members() {
                if let Some(constant) = expression.get("constant_value")
                    && (inner.contains(name) || names::is_secret_name(name))
                {
                    secrets.add(constant)?;
                }
            }
            Ok(())
        }),
        _ => Ok(reader.skip()?),
    })
}

/// Constants of providers' configurations whose names say that they are secret.
fn of_providers(reader: &mut Reader<'_>, secrets: &mut Secrets) -> Result<(), Refusal> {
    reader.object(|_, reader| {
        let provider = reader.value()?;
        let expressions = provider.get("expressions").unwrap_or(&Json::Null);
        for (name, expression) in expressions.members() {
            if let Some(constant) = expression.get("constant_value")
                && names::is_secret_name(name)
            {
                secrets.add(constant)?;
            }
        }
        Ok(())
    })
}

/// Values of a state or of what is planned.
pub(super) fn of_values(reader: &mut Reader<'_>, secrets: &mut Secrets) -> Result<(), Refusal> {
    reader.object(|member, reader| match member {
        "outputs" => reader.object(|_, reader| {
            let output = reader.value()?;
            if output.get("sensitive") == Some(&Json::Bool(true)) {
                secrets.add(output.get("value").unwrap_or(&Json::Null))?;
            }
            Ok::<_, Refusal>(())
        }),
        "root_module" => of_module_values(reader, secrets),
        _ => Ok(reader.skip()?),
    })
}

fn of_module_values(reader: &mut Reader<'_>, secrets: &mut Secrets) -> Result<(), Refusal> {
    reader.object(|member, reader| match member {
        "resources" => reader.array(|reader| {
            let resource = reader.value()?;
            let values = resource.get("values");
            marked(values, resource.get("sensitive_values"), secrets)?;
            by_type(resource.get("type"), values, secrets)
        }),
        "child_modules" => reader.array(|reader| of_module_values(reader, secrets)),
        _ => Ok(reader.skip()?),
    })
}

fn of_change(resource: &Json, secrets: &mut Secrets) -> Result<(), Refusal> {
    let Some(change) = resource.get("change") else {
        return Ok(());
    };
    for (side, marks) in [("before", "before_sensitive"), ("after", "after_sensitive")] {
        marked(change.get(side), change.get(marks), secrets)?;
        by_type(resource.get("type"), change.get(side), secrets)?;
    }
    Ok(())
}

/// What a type's or an attribute's name says is secret is looked for elsewhere too.
fn by_type(
    kind: Option<&Json>,
    value: Option<&Json>,
    secrets: &mut Secrets,
) -> Result<(), Refusal> {
    let Some(value) = value else {
        return Ok(());
    };
    let kind = kind.and_then(Json::as_str);
    if kind.is_some_and(names::is_secret_type) {
        for (name, value) in value.members() {
            if !names::is_plain_of_secret_type(name) {
                secrets.add_named(value)?;
            }
        }
    }
    by_name(value, secrets)
}

/// What the names in a value, and in texts that are documents, say is secret.
fn by_name(value: &Json, secrets: &mut Secrets) -> Result<(), Refusal> {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => Ok(()),
        Json::String(text) => {
            if !text.trim_start().starts_with(['{', '[']) {
                return Ok(());
            }
            Json::parse(text.as_bytes()).map_or(Ok(()), |inner| by_name(&inner, secrets))
        }
        Json::Array(items) => items.iter().try_for_each(|item| by_name(item, secrets)),
        Json::Object(members) => {
            let holder = Holder::of(value);
            members.iter().try_for_each(|(name, value)| {
                if holder.is_secret(name) {
                    secrets.add_named(value)
                } else {
                    by_name(value, secrets)
                }
            })
        }
    }
}

/// Values at which a mask is true.
fn marked(
    value: Option<&Json>,
    marks: Option<&Json>,
    secrets: &mut Secrets,
) -> Result<(), Refusal> {
    let (Some(value), Some(marks)) = (value, marks) else {
        return Ok(());
    };
    match marks {
        Json::Bool(true) => secrets.add(value),
        Json::Object(marks) => {
            let members: HashMap<_, _> = value
                .members()
                .iter()
                .map(|(name, value)| (name, value))
                .collect();
            marks.iter().try_for_each(|(name, mark)| {
                marked(members.get(name).copied(), Some(mark), secrets)
            })
        }
        Json::Array(marks) => {
            let pairs = value.items().iter().zip(marks);
            pairs
                .into_iter()
                .try_for_each(|(value, mark)| marked(Some(value), Some(mark), secrets))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(()),
    }
}
