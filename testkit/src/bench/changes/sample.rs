//! A made-up past of changes over the fleet of `bench::api::sample`: a year of plans, applies and plays, one plan with very many
//! resources and one play that changed very much. Made in Postgres by numbers, so that the same size is the same past.

use anyhow::Context;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    pub hosts: i32,
    /// Every second is one of Terraform, whose every second has an apply; the others are plays. Of the last two the plan
    /// and the play are the large ones.
    pub changes: i32,
    /// Of the large plan.
    pub resources: i32,
    /// Of all plays; a tenth of them are the large one's.
    pub results: i32,
}

/// Resources of a plan, hosts and tasks of a play.
const RESOURCES: i32 = 5;
const HOSTS: i32 = 10;
const TASKS: i32 = 20;
/// Hosts of the large play.
const LARGE_HOSTS: i32 = 500;
/// Changes of one statement.
const CHUNK: i32 = 1000;

const CHANGES: &str = "
    insert into changes (change_id, origin, title, started_at, ended_at, outcome, tools, repository, commit_id, branch,
        pull_request, actor, environment, workspace, run_url, add_count, change_count, destroy_count, host_count,
        created_at, updated_at)
    select ('00000000-0000-7000-9000-' || lpad(to_hex(i), 12, '0'))::uuid, 'captured',
        case when i % 2 = 1 then 'Ansible play of ' when i % 4 = 0 then 'Terraform apply of ' else 'Terraform plan of ' end || repository,
        at, at + interval '5 minutes',
        case when i % 4 = 2 then 'planned' when a % 100 = 0 then 'interrupted' when a % 10 = 0 then 'failed' else 'succeeded' end,
        array[case when i % 2 = 1 then 'ansible' else 'terraform' end], repository, md5('g' || i) || '00000000',
        case when a % 3 = 0 then 'main' else 'branch-' || a % 1000 end, (i / 3)::text, 'user-' || a % 100,
        (array['prod', 'test', 'dev'])[1 + a % 3], (array['prod', 'test', 'dev'])[1 + a % 3],
        'https://ci.example/' || repository || '/runs/' || i, 2, 1, 0, 0, at, at
    from generate_series($1::int, $2::int) as i,
        lateral (select ('x' || substr(md5('c' || i), 1, 7))::bit(28)::int as a,
                     $3::timestamptz - ($4::int - i) * (interval '365 days' / $4::int) as at) as n,
        -- A tenth of all is of the first, and few of each of most.
        lateral (select 'git.example/team/infra-' || case when a % 10 = 0 then 0 else a % 200 end as repository) as r";

/// Number 1 is the plan or the play, 2 the apply.
const RUNS: &str = "
    insert into change_runs (run_id, change_id, tool, kind, content_hash, received_at, started_at, ended_at, outcome,
        tool_version, format, claims, brought_by, summary, detail, warnings, redactions)
    select run_id, change_id, tools[1], kind, decode(md5('a' || run_id) || md5('b' || run_id), 'hex'), started_at,
        started_at, ended_at, case when kind = 'plan' then 'planned' else outcome end,
        case when kind = 'play' then '2.19.14' else '1.9.8' end, '1.2',
        jsonb_build_object('repository', repository, 'commit', commit_id, 'branch', branch, 'actor', actor,
            'pull_request', pull_request, 'environment', environment, 'workspace', workspace, 'run_url', run_url),
        'pipelines',
        case when kind = 'play' then jsonb_build_object('hosts', 10, 'ok', 150, 'changed', 50, 'failures', 0,
                 'unreachable', 0, 'skipped', 0, 'rescued', 0, 'ignored', 0)
             else jsonb_build_object('add', 2, 'change', 1, 'destroy', 0, 'no_op', 2) end,
        case when kind = 'play' then jsonb_build_object('playbook', 'site.yml', 'playbook_path', '/srv/plays/site.yml',
                 'controller', 'ci-1', 'user', actor, 'check', false, 'tags', array['all'], 'python_version', '3.11.7')
             else jsonb_build_object('outputs', '[]'::jsonb, 'checks', '[]'::jsonb) end,
        '{}', case when kind = 'plan' then 3 else 0 end
    from changes, generate_series(1, 2) as n,
        lateral (select ('x' || right(change_id::text, 8))::bit(32)::int as i) as number,
        lateral (select overlay(change_id::text placing 'a00' || n from 20)::uuid as run_id,
                     case when n = 2 then 'apply' when i % 2 = 1 then 'play' else 'plan' end as kind) as run
    where i between $1 and $2 and (n = 1 or i % 4 = 0)";

const RESOURCE_ROWS: &str = "
    insert into change_resources (run_id, ordinal, part, address, module_address, mode, type, name, provider, action,
        actions, is_imported, attributes, is_cut)
    select ('00000000-0000-7000-a001-' || lpad(to_hex(i), 12, '0'))::uuid, n, 'change',
        module || '.' || kind || '.this[' || i + n || ']', module, 'managed', kind, 'this',
        'registry.terraform.io/hashicorp/aws', action, array[replace(action, '_', '-')], false,
        case when action = 'no_op' then '[]' else jsonb_build_array(
            jsonb_build_object('path', array['tags', 'Revision'], 'what', 'changed', 'before', to_jsonb(md5('b' || i + n))::text,
                'after', to_jsonb(md5('a' || i + n))::text),
            jsonb_build_object('path', array['instance_type'], 'what', 'changed', 'before', '\"t3.medium\"', 'after', '\"t3.large\"'),
            jsonb_build_object('path', array['arn'], 'what', 'added', 'before', null, 'after',
                to_jsonb('arn:aws:ec2:eu-central-1:123456789012:instance/i-' || left(md5('i' || i + n), 17))::text),
            jsonb_build_object('path', array['user_data'], 'what', 'sensitive_changed', 'before', null, 'after', null),
            jsonb_build_object('path', array['vpc_security_group_ids', '0'], 'what', 'changed', 'before',
                to_jsonb('sg-' || left(md5('s' || i + n), 17))::text, 'after', to_jsonb('sg-' || left(md5('t' || i + n), 17))::text),
            jsonb_build_object('path', array['private_ip'], 'what', 'unknown', 'before', '\"10.0.0.1\"', 'after', null)) end,
        false
    from generate_series($1::int, $2::int) as i, generate_series($3::int, $4::int) as n,
        lateral (select (array['no_op', 'update', 'create', 'no_op', 'update'])[1 + n % 5] as action,
                     (array['aws_instance', 'aws_security_group', 'aws_iam_policy'])[1 + n % 3] as kind,
                     'module.service_' || n / 200 as module) as what
    where i % 2 = 0";

const PLAYS: &str = "
    with play as (
        select i, hosts, tasks, ('00000000-0000-7000-a001-' || lpad(to_hex(i), 12, '0'))::uuid as run_id,
            $3::timestamptz - ($4::int - i) * (interval '365 days' / $4::int) as at
        from generate_series($1::int, $2::int) as i,
            lateral (select case when i = $8 then $9 else $6 end as hosts, case when i = $8 then $10 else $7 end as tasks) as n
        where i % 2 = 1
    ), run as (
        insert into play_runs (run_id, acked_seq) select run_id, 1000000 from play
    ), host as (
        insert into play_hosts (run_id, number, name, machine_id, recap)
        select run_id, number, h.name, h.machine_id, jsonb_build_object('ok', tasks, 'changed', tasks / 4, 'failures', 0,
            'unreachable', 0, 'skipped', 0, 'rescued', 0, 'ignored', 0)
        from play, generate_series(0, hosts - 1) as number,
            lateral (select ('00000000-0000-7000-8000-' || lpad(to_hex(1 + (i * 7 + number) % $5::int), 12, '0'))::uuid as id) as fleet,
            hosts h where h.host_id = fleet.id
    ), batch as (
        insert into play_batches (run_id, play, batch, at, name, pattern, strategy, hosts, host_count)
        select run_id, 'play', 1, at, 'Web', 'web', 'linear', '0-' || hosts - 1, hosts from play
    )
    insert into change_tasks (run_id, task, batch, first_seq, play, at, ended_at, name, action, role, path, line, tags,
        is_handler, check_mode, ok, ok_hosts, skipped, skipped_hosts)
    select run_id, '02fc0000-0001-f763-611d-' || lpad(to_hex(n), 12, '0'), 1, 1 + n * (hosts + 1), 'play', at, at,
        'Step ' || n, 'ansible.builtin.apt', 'web', 'roles/web/tasks/main.yml', n, '{}', false, false, hosts / 2,
        '0-' || hosts / 2, 0, ''
    from play, generate_series(0, tasks - 1) as n";

/// `$5` of each play, over `$6` hosts and `$7` tasks, in the order of its tasks.
const RESULT_ROWS: &str = "
    insert into change_results (run_id, seq, task, batch, host, status, ignored, ended_at, body)
    select ('00000000-0000-7000-a001-' || lpad(to_hex(i), 12, '0'))::uuid, 2 + n,
        '02fc0000-0001-f763-611d-' || lpad(to_hex(n / $6::int % $7::int), 12, '0'), 1,
        'host-' || n % $6::int || '.example.org', case when n % 40 = 39 then 'failed' else 'changed' end, false, at,
        jsonb_build_object('started_at', at, 'message', 'package-' || n || ' was upgraded from 1.' || n || ' to 2.' || n)
    from generate_series($1::int, $2::int) as i, generate_series(0, $5::int - 1) as n,
        lateral (select $3::timestamptz - ($4::int - i) * (interval '365 days' / $4::int) as at) as time
    where i % 2 = 1";

/// Each host of a play, and each plan's and apply's first resource.
const LINKS: &str = "
    insert into change_links (run_id, ordinal, role, name, marks, state, host_id, method, confidence, created_at, tried_at)
    select p.run_id, p.number, 'play', p.name, jsonb_build_object('machine_id', array[p.machine_id]), 'linked', h.host_id,
        'machine_id', 'high', r.started_at, r.started_at
    from play_hosts p join hosts h on h.name = p.name join change_runs r on r.run_id = p.run_id
    union all
    select r.run_id, 0, 'is', 'module.service_0.aws_instance.this[' || i || ']',
        jsonb_build_object('instance_id', array['i-' || left(md5('i' || i), 17)]), 'linked', h.host_id, 'instance_id', 'certain',
        r.started_at, r.started_at
    from change_runs r, lateral (select ('x' || right(run_id::text, 8))::bit(32)::int as i) as number, hosts h
    where r.tool = 'terraform'
      and h.host_id = ('00000000-0000-7000-8000-' || lpad(to_hex(1 + i * 3 % $1::int), 12, '0'))::uuid";

const HOST_ROWS: &str = "
    with touched as (
        insert into change_hosts (change_id, run_id, host_id, at, until, method, confidence)
        select r.change_id, r.run_id, l.host_id, r.started_at, r.ended_at, l.method, l.confidence
        from change_links l join change_runs r using (run_id) where $1::int > 0
        on conflict do nothing returning change_id, host_id
    )
    update changes c set host_count = n.hosts
    from (select change_id, count(distinct host_id) as hosts from touched group by change_id) as n
    where n.change_id = c.change_id";

/// Fills the tables, over hosts that are there.
pub async fn load(
    connection: &mut PgConnection,
    past: Past,
    now: OffsetDateTime,
    say: &impl Fn(&str),
) -> anyhow::Result<()> {
    let Past {
        hosts,
        changes: last,
        resources,
        results,
    } = past;
    anyhow::ensure!(last % 4 == 0 && last > 4, "changes in fours");
    let (plan, play) = (last, last - 1);
    let large_hosts = LARGE_HOSTS.min(hosts);
    let large_results = results / 10;
    let large_tasks = (large_results / large_hosts).max(1);
    let each = ((results - large_results) / (last / 2 - 1)).max(1);
    for first in (1..=last).step_by(CHUNK.unsigned_abs() as usize) {
        let to = (first + CHUNK - 1).min(last);
        say(&format!("loading changes up to {to}"));
        for (what, sql) in [("changes", CHANGES), ("runs", RUNS)] {
            let mut query = sqlx::query(sql).bind(first).bind(to);
            if what == "changes" {
                query = query.bind(now).bind(last);
            }
            let done = query.execute(&mut *connection).await;
            done.with_context(|| format!("cannot load {what}"))?;
        }
        resource_rows(connection, (first, to.min(plan - 1)), (0, RESOURCES - 1)).await?;
        let done = sqlx::query(PLAYS)
            .bind(first)
            .bind(to)
            .bind(now)
            .bind(last)
            .bind(hosts)
            .bind(HOSTS)
            .bind(TASKS)
            .bind(play)
            .bind(large_hosts)
            .bind(large_tasks)
            .execute(&mut *connection)
            .await;
        done.context("cannot load plays")?;
        let numbers = (each, HOSTS, TASKS);
        result_rows(connection, (first, to.min(play - 1)), numbers, (now, past)).await?;
    }
    say("loading the large plan and play");
    for first in (0..resources).step_by(10_000) {
        let to = (first + 10_000).min(resources) - 1;
        resource_rows(connection, (plan, plan), (first, to)).await?;
    }
    let numbers = (large_tasks * large_hosts, large_hosts, large_tasks);
    result_rows(connection, (play, play), numbers, (now, past)).await?;
    for (what, sql) in [("links", LINKS), ("hosts of changes", HOST_ROWS)] {
        say(&format!("loading {what}"));
        let done = sqlx::query(sql).bind(hosts).execute(&mut *connection).await;
        done.with_context(|| format!("cannot load {what}"))?;
    }
    sqlx::query("analyze").execute(connection).await?;
    Ok(())
}

async fn resource_rows(
    connection: &mut PgConnection,
    changes: (i32, i32),
    ordinals: (i32, i32),
) -> anyhow::Result<()> {
    let query = sqlx::query(RESOURCE_ROWS).bind(changes.0).bind(changes.1);
    let query = query.bind(ordinals.0).bind(ordinals.1);
    query
        .execute(connection)
        .await
        .context("cannot load resources")?;
    Ok(())
}

/// `numbers`: results of each play, and over how many hosts and tasks they are.
async fn result_rows(
    connection: &mut PgConnection,
    changes: (i32, i32),
    numbers: (i32, i32, i32),
    (now, past): (OffsetDateTime, Past),
) -> anyhow::Result<()> {
    let query = sqlx::query(RESULT_ROWS).bind(changes.0).bind(changes.1);
    let query = query.bind(now).bind(past.changes);
    let query = query.bind(numbers.0).bind(numbers.1).bind(numbers.2);
    query
        .execute(connection)
        .await
        .context("cannot load results")?;
    Ok(())
}
