-- Whoever was given a password by somebody else chooses one of their own when they log in.

alter table users add column must_change_password boolean not null default false;
