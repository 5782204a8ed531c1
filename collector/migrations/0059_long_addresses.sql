-- An address may be longer than an entry of an index.
drop index change_resources_address;
