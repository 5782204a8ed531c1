-- Postgres puts a function's body in place of its call only where the call promises no more than the body keeps, and
-- `timestamptz - interval` is stable. Called a row at a time, it takes many times as long.

alter function host_reasons(host_liveness, timestamptz, timestamptz, timestamptz, timestamptz) stable;
