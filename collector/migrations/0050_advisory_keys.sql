-- By what advisories and packages find each other: a package's source and its version, a host's distribution.

-- Sorts as the manager orders versions of what the package was built from; null where that is not known yet or at all.
alter table packages add column source_key bytea;
update packages set source_key = sort_key where source_version = '';

create index packages_built_from on packages ((case when source = '' then name else source end collate "C"), manager);

-- Which advisories speak of a host, from `facts.os`; as `documents/distributions.rs` has it.
create function host_distribution(os jsonb) returns text language sql immutable parallel safe as $$
    select case os ->> 'id'
        when 'alpine' then 'alpine:' || substring(os ->> 'version' from '^[0-9]+\.[0-9]+')
        when 'debian' then 'debian:' || coalesce(os ->> 'version',
            case os ->> 'codename' when 'forky' then '14' when 'duke' then '15' else os ->> 'codename' end)
        when 'opensuse-tumbleweed' then 'opensuse-tumbleweed'
        when 'sles_sap' then 'sles:' || (os ->> 'version')
        when 'almalinux' then 'almalinux:' || split_part(os ->> 'version', '.', 1)
        when 'ol' then 'ol:' || split_part(os ->> 'version', '.', 1)
        when 'rhel' then 'rhel:' || split_part(os ->> 'version', '.', 1)
        when 'rocky' then 'rocky:' || split_part(os ->> 'version', '.', 1)
        else (os ->> 'id') || ':' || (os ->> 'version')
    end collate "C"
$$;

create index facts_distribution on facts (host_distribution(body), host_id) where key = 'facts.os';

-- Whether the distribution made the package: its advisories speak of no other's. dpkg keeps no origin of most
-- packages; without one, the marks that others put into versions tell, backports among them.
create function is_of_distribution(manager text, vendor text, version text, distribution text) returns boolean
language sql immutable parallel safe as $$
    select case
        when manager = 'dpkg' and vendor <> '' then lower(vendor) = split_part(distribution, ':', 1)
        when manager = 'dpkg' then version !~
            '[~+](bpo|ubuntu\.|debian\.|deb\.)|ppa|pgdg|nodesource|sury|~(buster|bullseye|bookworm|trixie|focal|jammy|noble)'
        when manager = 'apk' then true
        when manager <> 'rpm' then false
        else vendor like case split_part(distribution, ':', 1)
            when 'almalinux' then 'AlmaLinux%'
            when 'ol' then 'Oracle%'
            when 'opensuse-leap' then '%SUSE%'
            when 'opensuse-tumbleweed' then '%SUSE%'
            when 'rhel' then 'Red Hat%'
            when 'rocky' then 'Rocky%'
            when 'sled' then 'SUSE%'
            when 'sles' then 'SUSE%'
        end
    end
$$;

-- How a version stands to a statement: `affected` where there is a fix that it has not, `fixed` where it has it,
-- `no_fix`, `not_affected`, `unknown`.
create function advisory_verdict(
    state         text,
    is_own        boolean,
    is_module     boolean,
    fixed_version text,
    from_key      bytea,
    before_key    bytea,
    version       text,
    version_key   bytea
) returns text language sql immutable parallel safe as $$
    select case
        when is_own is not true then 'unknown'
        when state in ('not_affected', 'unknown') then state
        when is_module then 'unknown'
        when state = 'fixed' and fixed_version = version then 'fixed'
        when state = 'fixed' and (before_key is null or version_key is null) then 'unknown'
        when version_key is null and (from_key is not null or before_key is not null) then 'unknown'
        when from_key > version_key then 'not_affected'
        when before_key <= version_key then case state when 'fixed' then 'fixed' else 'not_affected' end
        when state = 'fixed' then 'affected'
        else 'no_fix'
    end
$$;

-- Of several statements of one advisory about one package the first of these holds.
create function verdict_rank(verdict text, is_extra boolean) returns integer language sql immutable parallel safe as $$
    select case
        when verdict = 'fixed' and is_extra then 0
        when verdict = 'affected' then 1
        when verdict = 'no_fix' then 2
        when verdict = 'unknown' then 3
        when verdict = 'fixed' then 4
        else 5
    end
$$;

-- What a package is called by advisories: what it was built from, with that one's version, and itself.
create view package_names as
    select package_id, manager, (case when source = '' then name else source end collate "C") as package,
        false as is_binary, name, version, vendor, source,
        case when source_version = '' then version else source_version end as compared, source_key as compared_key
    from packages
    union all
    select package_id, manager, name, true, name, version, vendor, source, version, sort_key from packages;

-- What every statement says of every package that it is about.
create view advisory_verdicts as
    select s.advisory_id, s.feed_id, s.distribution, s.fixed_version, s.note, s.is_extra, n.package_id, n.name, n.version,
        (case when n.source = '' then n.name else n.source end collate "C") as source,
        advisory_verdict(s.state, is_of_distribution(n.manager, n.vendor, n.version, s.distribution), s.is_module,
                         s.fixed_version, s.from_key, s.before_key, n.compared, n.compared_key) as verdict
    from advisory_statements s
    join package_names n on n.package = s.package and n.manager = s.manager
    where case when n.is_binary then s.applies = 'binary' or s.applies = 'either' and n.source not in ('', n.name)
               else s.applies <> 'binary' end;
