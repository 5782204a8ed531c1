-- A host can stop having a fact: the change then has nothing on its new side.
alter table fact_changes alter column new_body drop not null;
