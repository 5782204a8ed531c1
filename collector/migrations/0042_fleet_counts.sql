-- How many hosts were in each status, a row an hour: the fleet's trend.

create table fleet_counts (
    -- The full hour; the row says how it was when the hour was last looked at.
    at        timestamptz primary key,
    healthy   bigint not null,
    degraded  bigint not null,
    unhealthy bigint not null,
    unknown   bigint not null
);
