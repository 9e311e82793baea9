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
    'internal: the most chunks to split a query into';

create function pmpp.by_ctid(tbl regclass, query text, chunks integer default null) returns text[]
language plpgsql volatile parallel restricted security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    hint constant text := 'Only tables and materialized views stored by the access method heap have '
        'ranges of ctid. Use by_partition for partitioned tables, and by_key for everything else.';
    root pg_class := pmpp._relation_to_split(tbl, 'tbl', '{r,m}', hint);
    blocks bigint := pg_relation_size(tbl) / current_setting('block_size')::integer;
    -- A chunk has at least one block. Of 100 blocks in three chunks, the second chunk starts at block 33.
    n bigint := greatest(1, least(blocks, pmpp._chunk_count(chunks)));
begin
    if (select amname from pg_am where oid = root.relam) <> 'heap' then
        raise wrong_object_type using message = format('%s cannot be cut in this way', tbl), hint = hint;
    end if;
    return pmpp._split(query, '{chunk}', array(
        select format(
                   case when i < n - 1
                        then '(%%1$s operator(pg_catalog.>=) ''(%s,0)'' and %%1$s operator(pg_catalog.<) ''(%s,0)'')'
                        else '(%%1$s operator(pg_catalog.>=) ''(%s,0)'')' end,
                   i * blocks / n, (i + 1) * blocks / n)
          from generate_series(0, n - 1) i
         order by i
    ), 'ctid');
end
$$;
comment on function pmpp.by_ctid(regclass, text, integer) is
    'one query for each range of blocks of a table, with a condition on ctid in place of {chunk}';
