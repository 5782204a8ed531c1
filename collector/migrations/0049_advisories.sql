-- What distributions say of vulnerabilities in their packages, feed by feed, and how it meets what hosts have.

create table advisory_feeds (
    feed_id         bigint generated always as identity primary key,
    name            text not null unique,
    format          text not null,
    location        text not null,
    -- Of the documents as they were imported: where it is the same, they are not read again.
    fingerprint     text,
    looked_at       timestamptz not null,
    imported_at     timestamptz,
    -- Why the documents could not be imported last; what was known of them stands.
    error           text,
    advisory_count  bigint not null default 0,
    statement_count bigint not null default 0,
    -- What was left out: of distributions that are not known here, say.
    skipped_count   bigint not null default 0
);

create table advisories (
    feed_id     bigint not null references advisory_feeds on delete cascade,
    advisory_id text   collate "C" not null,
    -- Itself, and the vulnerabilities that it is about.
    names       text[] not null,
    severity    text,
    summary     text   not null,
    primary key (advisory_id, feed_id)
);

create index advisories_feed on advisories (feed_id);
create index advisories_names on advisories using gin (names);

create table advisory_statements (
    statement_id   bigint generated always as identity primary key,
    feed_id        bigint  not null references advisory_feeds on delete cascade,
    advisory_id    text    collate "C" not null,
    distribution   text    collate "C" not null,
    manager        text    not null,
    package        text    collate "C" not null,
    -- What `package` names: `source`, `binary` or `either`.
    applies        text    not null,
    -- `fixed`, `no_fix`, `not_affected`, `unknown`.
    state          text    not null,
    fixed_version  text,
    -- From this version on it is affected; before the next it is. Sort as the manager orders versions.
    from_key       bytea,
    before_key     bytea,
    -- For subscribers, beside what everybody gets.
    is_extra       boolean not null,
    -- Of a stream of many versions of one package, and nothing tells which of them a host has.
    is_module      boolean not null,
    note           text
);

create index advisory_statements_package on advisory_statements (distribution, package);
create index advisory_statements_advisory on advisory_statements (advisory_id, feed_id);
create index advisory_statements_feed on advisory_statements (feed_id);

-- What is open anywhere in the fleet: advisories that meet a package which a host of the distribution has.
create table advisory_findings (
    advisory_id  text   collate "C" not null,
    package_id   bigint not null,
    distribution text   collate "C" not null,
    state        text   not null,
    primary key (advisory_id, package_id, distribution)
);

-- Of what the findings were made.
create table advisory_counted (
    is_only          boolean primary key default true check (is_only),
    counted_at       timestamptz not null,
    newest_package   bigint not null,
    newest_statement bigint not null
);
