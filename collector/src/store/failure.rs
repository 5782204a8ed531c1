//! What is wrong with the database, in words that quote no parameter of the connection: for whoever may see
//! the answer of `/health`. The log has the error as it is.

/// The reason of `error`.
pub fn words(error: &sqlx::Error) -> &'static str {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .unwrap_or_default();
    // PostgreSQL, appendix A.
    match code.as_ref() {
        "28P01" | "28000" => "Postgres refuses the configured credentials",
        "3D000" => "the configured database does not exist",
        "42P01" => "the database has no migrations; run infratrack-collector migrate",
        "42501" => "the configured role lacks rights in the database",
        "53100" => "Postgres has no disk space left",
        "53300" => "Postgres takes no more connections",
        "25006" => "Postgres is read-only: a standby, or on its way to be one",
        _ => "Postgres cannot be reached or does not answer; the collector's log says why",
    }
}
