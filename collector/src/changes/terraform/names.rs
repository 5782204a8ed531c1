//! What names of attributes and types say about secrets.

/// Parts of names of secrets.
const SECRET_NAMES: [&str; 30] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "private_key",
    "privatekey",
    "user_data",
    "userdata",
    "custom_data",
    "connection_string",
    "connectionstring",
    "kubeconfig",
    "kube_config",
    "api_key",
    "apikey",
    "access_key",
    "accesskey",
    "credential",
    "client_key",
    "signing_key",
    "encryption_key",
    "sas_url",
    "auth_string",
    "authorization",
    "bearer",
    "certificate_pem_key",
    "ssh_key_private",
    "master_key",
    "startup_script",
];
/// Ends of names that only sound so.
const PLAIN_ENDS: [&str; 47] = [
    "_id",
    "_ids",
    "_arn",
    "_arns",
    "_name",
    "_names",
    "_version",
    "_versions",
    "_length",
    "_policy",
    "_type",
    "_enabled",
    "_required",
    "_count",
    "_expiration",
    "_ttl",
    "_path",
    "_file",
    "_url",
    "_endpoint",
    "_on_change",
    "_algorithm",
    "_days",
    "_age",
    "_usage",
    "_status",
    "_ref",
    "_refs",
    "_scanning",
    "_push_protection",
    "_pull_secrets",
    "http_tokens",
    "master_user_secret",
    "encoding",
    "_method",
    "_source",
    "_mode",
    "_format",
    "_units",
    "_validity",
    "_lifetime",
    "_period",
    "_timeout",
    "_interval",
    "_size",
    "_bits",
    "value_from",
];
/// Types whose values are secrets.
const SECRET_TYPES: [&str; 17] = [
    "random_password",
    "random_bytes",
    "tls_private_key",
    "aws_iam_access_key",
    "aws_ssm_parameter",
    "azurerm_key_vault_secret",
    "azurerm_key_vault_key",
    "google_service_account_key",
    "kubernetes_secret",
    "kubernetes_secret_v1",
    "github_actions_secret",
    "github_actions_organization_secret",
    "github_actions_environment_secret",
    "gitlab_project_variable",
    "gitlab_group_variable",
    "digitalocean_certificate",
    "consul_keys",
];
/// What is kept of them.
const PLAIN_OF_SECRET_TYPES: [&str; 71] = [
    "arn",
    "name",
    "name_prefix",
    "path",
    "mount",
    "backend",
    "region",
    "location",
    "namespace",
    "namespace_in",
    "tags",
    "tags_all",
    "labels",
    "annotations",
    "length",
    "special",
    "upper",
    "lower",
    "numeric",
    "number",
    "min_lower",
    "min_upper",
    "min_numeric",
    "min_special",
    "algorithm",
    "ecdsa_curve",
    "rsa_bits",
    "key_algorithm",
    "user",
    "status",
    "version",
    "create_date",
    "type",
    "tier",
    "data_type",
    "overwrite",
    "repository",
    "environment_scope",
    "id",
    "secret_name",
    "metadata",
    "keepers",
    "project",
    "description",
    "datacenter",
    "domains",
    "state",
    "uuid",
    "enabled",
    "created_at",
    "updated_at",
    "remote_updated_at",
    "not_after",
    "not_before_date",
    "expiration_date",
    "content_type",
    "key_id",
    "key_vault_id",
    "service_account_id",
    "version_id",
    "version_stages",
    "variable_type",
    "display_name",
    "role_name",
    "policies",
    "public_key",
    "public_key_pem",
    "public_key_openssh",
    "public_key_fingerprint_md5",
    "public_key_fingerprint_sha256",
    "sha1_fingerprint",
];
/// Words of settings: where a name makes one a secret, others that are the same are none.
const COMMON_WORDS: [&str; 21] = [
    "active",
    "inactive",
    "enabled",
    "disabled",
    "required",
    "optional",
    "default",
    "custom",
    "automatic",
    "managed",
    "verified",
    "private",
    "public",
    "standard",
    "aws_iam",
    "cognito_user_pools",
    "header",
    "authorizer",
    "opaque",
    "seconds",
    "minutes",
];
/// What names of things in clouds begin with.
const REFERENCES: [&str; 4] = ["arn:", "projects/", "organizations/", "/subscriptions/"];

/// Whether an attribute of this name is secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = snake(name);
    SECRET_NAMES.iter().any(|part| name.contains(part)) && !has_plain_end(&name)
}

/// `secretName` and `Secret-Name` are `secret_name`.
pub(super) fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut was_small = false;
    for character in name.chars() {
        if was_small && character.is_ascii_uppercase() {
            snake.push('_');
        }
        was_small = character.is_ascii_lowercase() || character.is_ascii_digit();
        snake.push(character);
    }
    snake.to_lowercase().replace('-', "_")
}

fn has_plain_end(name: &str) -> bool {
    PLAIN_ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether a member of what is called like a secret is but a name, a place or a kind.
pub(super) fn is_plain_inside(name: &str) -> bool {
    name == "key" || is_plain_of_secret_type(name) || has_plain_end(&snake(name))
}

/// Whether a text that a name or a type makes a secret may stand elsewhere without being one.
pub(super) fn is_common(text: &str) -> bool {
    REFERENCES.iter().any(|begin| text.starts_with(begin))
        || COMMON_WORDS
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a resource of this type holds secrets.
pub(super) fn is_secret_type(kind: &str) -> bool {
    SECRET_TYPES.contains(&kind) || kind.ends_with("_secret_version") || kind.starts_with("vault_")
}

/// Whether a member of a resource of a secret type is none itself.
pub(super) fn is_plain_of_secret_type(name: &str) -> bool {
    PLAIN_OF_SECRET_TYPES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_names_that_only_sound_so() {
        for name in [
            "password",
            "DB_PASSWORD",
            "client-secret",
            "user_data_base64",
            "access_token",
            "kubeconfig",
            "clientSecret",
            "metadata_startup_script",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "name",
            "secret_arn",
            "token_ttl",
            "password_length",
            "access_key_id",
            "user_data_replace_on_change",
            "secretName",
            "secretKeyRef",
            "http_tokens",
            "secret_scanning_push_protection",
            "master_user_secret",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        assert!(
            is_secret_type("aws_secretsmanager_secret_version") && !is_secret_type("aws_instance")
        );
    }
}
