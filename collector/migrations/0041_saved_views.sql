-- Lists of hosts that somebody keeps under a name: what the page's URL asks for.

create table saved_views (
    view_id    uuid primary key,
    name       text        not null,
    -- What stands after the `?`.
    query      text        not null,
    -- Kind and id of who keeps it, `user:…`; and what they were called.
    owner      text        not null,
    owner_name text        not null,
    is_shared  boolean     not null default false,
    -- What its owner sees who asks for nothing.
    is_default boolean     not null default false,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    unique (owner, name)
);

create unique index saved_views_default on saved_views (owner) where is_default;
create index saved_views_shared on saved_views (name) where is_shared;
