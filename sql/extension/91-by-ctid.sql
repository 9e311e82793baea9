create function pmpp._chunk_count(chunks integer) returns integer
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if chunks < 1 then
        raise invalid_parameter_value using
            message = format('chunks must be 1 or more, not %s', chunks),
            hint = 'Leave it out for four chunks for each CPU.';
    end if;
    return coalesce(chunks, 4 * pmpp.num_cpus());
end
$$;
comment on function pmpp._chunk_count(integer) is
    'internal: into how many chunks to cut at most';
revoke all on function pmpp._chunk_count(integer) from public;
grant execute on function pmpp._chunk_count(integer) to pmpp;

-- One query for each condition. A condition is a format string, in which %1$s is the column. The query
-- is split once, since the values in a condition may themselves contain a placeholder.
create function pmpp._cut_chunks(query text, col text, conditions text[]) returns text[]
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    -- What follows {chunk in a placeholder. An alias is a name as SQL writes it, in quotes or not.
    tail constant text collate "C" := '^(}|:(?:(?![0-9$])(?:[a-zA-Z0-9_$]|[^\x01-\x7f])+|"(?:[^"]|"")+")})';
    texts text[] collate "C" := string_to_array(query collate "C", '{chunk');
    tails text[] collate "C";
    malformed text;
begin
    if query is null then
        raise null_value_not_allowed using message = 'query must not be null';
    end if;
    select array_agg(substring(t.text from tail) order by t.n),
           min(t.text) filter (where starts_with(t.text, ':') and t.text !~ tail)
      into tails, malformed
      from unnest(texts[2:]) with ordinality t(text, n);
    if malformed is not null then
        raise invalid_parameter_value using
            message = format('malformed placeholder: {chunk%s', substring(malformed from '^:[^}]{0,70}}?')),
            detail = format('The query is: %s', query),
            hint = 'Write {chunk:alias}, with quotes around the alias where SQL needs them, or {chunk}.';
    elsif coalesce(array_remove(tails, null), '{}') = '{}' then
        raise invalid_parameter_value using
            message = 'the query does not contain {chunk}',
            detail = format('The query is: %s', query),
            hint = 'Write {chunk} where each query is to name its piece, or {chunk:alias} in a join.';
    end if;
    return array(
        select texts[1] || (
            select string_agg(
                       case when p.tail is null then '{chunk' || p.text
                            else format(c.condition, concat(substring(p.tail from '^:(.*)}$') || '.', col))
                                || substr(p.text, length(p.tail) + 1) end,
                       '' order by p.n)
              from unnest(texts[2:], tails) with ordinality p(text, tail, n)
        )
          from unnest(conditions) with ordinality c(condition, n)
         order by c.n
    );
end
$$;
comment on function pmpp._cut_chunks(text, text, text[]) is
    'internal: one query for each condition on a column, which takes the place of {chunk} and {chunk:alias}';
revoke all on function pmpp._cut_chunks(text, text, text[]) from public;
grant execute on function pmpp._cut_chunks(text, text, text[]) to pmpp;

create function pmpp.by_ctid(tbl regclass, query text, chunks integer default null) returns text[]
language plpgsql volatile parallel restricted security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    hint constant text := 'Only tables and materialized views stored by the access method heap have '
        'ranges of ctid. Use by_partition for partitioned tables, and by_key for everything else.';
    root pg_class := pmpp._relation_to_cut(tbl, 'tbl', '{r,m}', hint);
    blocks bigint := pg_relation_size(tbl) / current_setting('block_size')::integer;
    -- No more chunks than blocks. Of 100 blocks in three chunks, chunk 1 starts at block 33.
    n bigint := greatest(1, least(blocks, pmpp._chunk_count(chunks)));
begin
    if (select amname from pg_am where oid = root.relam) <> 'heap' then
        raise wrong_object_type using message = format('%s cannot be cut in this way', tbl), hint = hint;
    end if;
    return pmpp._cut_chunks(query, 'ctid', array(
        select format('(%%1$s operator(pg_catalog.>=) ''(%s,0)''', i * blocks / n)
               || case when i < n - 1 then format(' and %%1$s operator(pg_catalog.<) ''(%s,0)''', (i + 1) * blocks / n) else '' end
               || ')'
          from generate_series(0, n - 1) i
         order by i
    ));
end
$$;
comment on function pmpp.by_ctid(regclass, text, integer) is
    'one query for each range of blocks of a table, with a condition on ctid in place of {chunk}';
revoke all on function pmpp.by_ctid(regclass, text, integer) from public;
grant execute on function pmpp.by_ctid(regclass, text, integer) to pmpp;
