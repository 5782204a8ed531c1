//! What names of attributes and types say about secrets.

/// Parts of names of secrets.
const SECRET_NAMES: [&str; 29] = [
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
];
/// Ends of names that only sound so.
const PLAIN_ENDS: [&str; 25] = [
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
const PLAIN_OF_SECRET_TYPES: [&str; 40] = [
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
];

/// Whether an attribute of this name is secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase().replace('-', "_");
    SECRET_NAMES.iter().any(|part| name.contains(part))
        && !PLAIN_ENDS.iter().any(|end| name.ends_with(end))
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
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        assert!(
            is_secret_type("aws_secretsmanager_secret_version") && !is_secret_type("aws_instance")
        );
    }
}
