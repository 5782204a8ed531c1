-- Tokens whose runs are of one repository; runs that are under way.

alter table api_tokens
    -- Null: of any.
    add column repository text;

create index change_runs_running on change_runs (ended_at) where outcome = 'running';
create index changes_ended on changes (ended_at);
