-- Words by which hosts are found, each by any beginning of it. Of a host's own columns an index computes them;
-- those of its facts stand in a narrow table, which the writer keeps in the transaction that stores the facts.

-- What stands between spaces, brackets and quotes, without punctuation before it, and each part of that between
-- punctuation; in lower case, cut after 64 characters, the first `most` of them.
create function search_words(texts text[], most integer) returns tsvector
    language sql immutable parallel safe as $$
    select coalesce(array_to_tsvector(array_agg(word)), '')
    from (
        select left(part, 64) as word
        from (
                 select whole, min(nth) as nth
                 from unnest(texts) with ordinality as t (txt, nth),
                      string_to_table(
                          translate(lower(left(txt, 256)), E'\t\n\r"''()<>[]{},;|', '                '), ' ') as whole
                 group by whole
             ) as wholes,
             unnest(ltrim(whole, '-/:.@_=+*%&#!?~^$\`')
                    || string_to_array(translate(whole, '-/:.@_=+', '        '), ' ')) as part
        where part <> ''
        group by 1 order by min(nth), 1 limit most
    ) as found
$$;

-- The query for a word: any word that begins with it. Null where nothing but punctuation is in it.
create function search_query(word text) returns tsquery language sql immutable parallel safe as $$
    select ('''' || replace(replace(plain, '\', '\\'), '''', '''''') || ''':*')::tsquery
    from nullif(left(ltrim(lower(word), '-/:.@_=+*%&#!?~^$\`'), 64), '') as plain
$$;

create function host_words(
    name text, machine_id text, instance_id text, tags text[], addresses inet[], owner text, environment text
) returns tsvector language sql immutable parallel safe as $$
    select search_words(
        array[name, environment, owner, instance_id, machine_id] || tags
            || array(select host(address) from unnest(addresses) as address), 1024)
$$;

create index hosts_words on hosts
    using gin (host_words(name, machine_id, instance_id, tags, addresses, owner, environment));

create table host_fact_words (
    host_id uuid primary key references hosts on delete cascade,
    words   tsvector not null
) with (toast_tuple_target = 128);

create index host_fact_words_words on host_fact_words using gin (words);

-- Texts and numbers in a fact, and names that are no field's: mount points, devices, interfaces.
create function fact_texts(body jsonb) returns setof text language sql immutable parallel safe rows 50 as $$
    select txt
    from jsonb_path_query(body, 'strict $.**') as value,
         lateral (
             select value #>> '{}' where jsonb_typeof(value) in ('string', 'number')
             union all
             select name from jsonb_object_keys(case when jsonb_typeof(value) = 'object' then value end) as name
             where name !~ '^[a-z_]+$'
         ) as told (txt)
    limit 4096
$$;

-- The words of all facts of a host; of more than 2,048, those of the largest facts are left out.
create function fact_words(host uuid) returns tsvector language sql stable as $$
    select search_words(array_agg(txt order by size, key, nth), 2048)
    from (select key, body, pg_column_size(body) as size from facts where host_id = host) as f,
         fact_texts(f.body) with ordinality as told (txt, nth)
$$;

insert into host_fact_words
select host_id, fact_words(host_id) from (select distinct host_id from facts) as told;

-- The hosts that have a word beginning with this one; some of them twice. Always by the indexes: the planner
-- does not know what it costs to read the words themselves.
create function hosts_with_word(word text) returns setof uuid
    language sql stable rows 500 set enable_seqscan = off as $$
    select host_id from hosts
    where host_words(name, machine_id, instance_id, tags, addresses, owner, environment) @@ search_query(word)
    union all
    select host_id from host_fact_words where words @@ search_query(word)
$$;
