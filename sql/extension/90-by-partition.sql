-- Splitting a query into chunks: first what by_partition, by_ctid and by_key share.

-- A relation with its partitions or inheritance children at all levels. A query reads neither
-- partitions that are being detached nor temporary tables of other sessions, so they are left out.
-- The workers of a parallel query have no temporary tables, so this function is not for them.
create function pmpp._relation_tree(relation oid) returns setof pg_class
language sql stable parallel restricted security invoker
set search_path = pg_catalog, pg_temp
as $$
    with recursive tree(member) as (
        select relation
        union
        select i.inhrelid from tree t join pg_inherits i on i.inhparent = t.member and not i.inhdetachpending
    )
    select c.*
      from tree t join pg_class c on c.oid = t.member
     where c.relpersistence <> 't' or c.relnamespace = pg_my_temp_schema() or c.oid = relation
$$;
comment on function pmpp._relation_tree(oid) is
    'internal: a relation with its partitions or inheritance children at all levels';

create function pmpp._relation_to_split(relation regclass, argument text, kinds "char"[], hint text)
returns pg_class
language plpgsql stable parallel restricted security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    root pg_class;
    temporary regclass;
begin
    if relation is null then
        raise null_value_not_allowed using message = format('%s must not be null', argument);
    end if;
    select * into root from pg_class where oid = relation;
    if not found then
        -- Citus hides its shards from pg_class, but not from the names that regclass takes.
        raise undefined_table using
            message = format('relation with OID %s does not exist', relation::oid),
            hint = case when exists (select from pg_extension where extname = 'citus')
                then 'If it is a shard, have Citus show it: SET citus.show_shards_for_app_name_prefixes TO ''*''.'
                else 'Give the name of a table of this database.' end;
    elsif root.relkind <> all (kinds) then
        raise wrong_object_type using
            message = format('%s cannot be cut in this way', relation),
            hint = hint;
    end if;
    select min(t.oid) into temporary from pmpp._relation_tree(relation) t where t.relpersistence = 't';
    if temporary is not null then
        raise wrong_object_type using
            message = format('%s is temporary: other connections cannot read it', temporary),
            hint = 'Copy it into a table that is not temporary.';
    end if;
    return root;
end
$$;
comment on function pmpp._relation_to_split(regclass, text, "char"[], text) is
    'internal: a relation of one of these kinds, if other connections can read it';

-- A chunk is a format string. In a condition, %1$s stands for the column, before which {chunk:alias}
-- puts an alias. The query is split before any chunk is put into it, because a value in a condition
-- may look like a placeholder.
create function pmpp._split(query text, placeholder text, chunks text[], col text default null) returns text[]
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    takes_alias constant boolean := placeholder = '{chunk}';
    -- An alias is a name as SQL writes it, in quotes or not.
    alias constant text := '(?![0-9$])(?:[a-zA-Z0-9_$]|[^\x01-\x7f])+|"(?:[^"]|"")+"';
    pattern constant text := case when takes_alias then format('{chunk(?::(%s))?}', alias) else placeholder end;
    malformed constant text := format('{chunk(?!:(?:%s)})(:[^}]{0,70}}?)', alias);
    texts text[];
    aliases text[];
begin
    if query is null then
        raise null_value_not_allowed using message = 'query must not be null';
    elsif takes_alias and query collate "C" ~ malformed then
        raise invalid_parameter_value using
            message = format('malformed placeholder: {chunk%s', substring(query collate "C" from malformed)),
            detail = format('The query is: %s', query),
            hint = 'Write {chunk:alias}, with quotes around the alias where SQL needs them, or {chunk}.';
    elsif query collate "C" !~ pattern then
        raise invalid_parameter_value using
            message = format('the query does not contain %s', placeholder),
            detail = format('The query is: %s', query),
            hint = format('Write %s where each query is to name its piece%s.', placeholder,
                          case when takes_alias then ', or {chunk:alias} in a join' end);
    end if;
    texts := regexp_split_to_array(query collate "C", pattern);
    aliases := array(
        select m.groups[1] from regexp_matches(query collate "C", pattern, 'g') with ordinality m(groups, n)
         order by m.n
    );
    return array(
        select texts[1] || (
            select string_agg(format(c.chunk, concat(p.alias || '.', col)) || p.text, '' order by p.n)
              from unnest(texts[2:], aliases) with ordinality p(text, alias, n)
        )
          from unnest(chunks) with ordinality c(chunk, n)
         order by c.n
    );
end
$$;
comment on function pmpp._split(text, text, text[], text) is
    'internal: one query for each chunk, which takes the place of {partition}, or of {chunk} and {chunk:alias}';

create function pmpp.by_partition(parent regclass, query text) returns text[]
language plpgsql stable parallel restricted security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    names text[];
begin
    perform pmpp._relation_to_split(parent, 'parent', '{r,p,f,m,i,I}',
        'Give a table, a materialized view or an index, partitioned or not.');
    -- A table with inheritance children has rows of its own, to which ONLY keeps its query. A
    -- partitioned table has none. If it has no partitions either, its query is the only one.
    with tree as (
        select t.oid, t.relkind in ('p', 'I') as is_partitioned,
               replace(format('%I.%I', n.nspname, t.relname), '%', '%%') as name
          from pmpp._relation_tree(parent) t join pg_namespace n on n.oid = t.relnamespace
    )
    select array_agg(
               case when not t.is_partitioned and exists (select from pg_inherits i where i.inhparent = t.oid)
                    then 'only ' || t.name else t.name end
               order by t.name collate "C")
      into names
      from tree t
     where not t.is_partitioned
        or t.oid = parent and not exists (select from tree leaf where not leaf.is_partitioned);
    return pmpp._split(query, '{partition}', names);
end
$$;
comment on function pmpp.by_partition(regclass, text) is
    'one query for each partition or inheritance child, with its name in place of {partition}';
