-- Why a resource of a plan waits for a later one, as the plan says it.
alter table change_resources add column deferred_reason text;
