-- Cutting a query into pieces. First what the three functions share.

-- The relation itself, its partitions or children, and theirs. Left out are those that are being
-- detached and the temporary tables of other sessions, as in queries: so it is not for workers of
-- a parallel query, which have none.
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
revoke all on function pmpp._relation_tree(oid) from public;
grant execute on function pmpp._relation_tree(oid) to pmpp;

create function pmpp._relation_to_cut(relation regclass, argument text, kinds "char"[], hint text)
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
comment on function pmpp._relation_to_cut(regclass, text, "char"[], text) is
    'internal: the table that a query is to be cut by, if it is of one of these kinds and other connections can read it';
revoke all on function pmpp._relation_to_cut(regclass, text, "char"[], text) from public;
grant execute on function pmpp._relation_to_cut(regclass, text, "char"[], text) to pmpp;

create function pmpp._cut(query text, placeholder text, pieces text[]) returns text[]
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if query is null then
        raise null_value_not_allowed using message = 'query must not be null';
    elsif strpos(query collate "C", placeholder) = 0 then
        raise invalid_parameter_value using
            message = format('the query does not contain %s', placeholder),
            detail = format('The query is: %s', query),
            hint = format('Write %s where each query is to name its piece.', placeholder);
    end if;
    return array(
        select replace(query collate "C", placeholder, p.piece)
          from unnest(pieces) with ordinality p(piece, n)
         order by p.n
    );
end
$$;
comment on function pmpp._cut(text, text, text[]) is
    'internal: one query for each piece, which takes the place of the placeholder';
revoke all on function pmpp._cut(text, text, text[]) from public;
grant execute on function pmpp._cut(text, text, text[]) to pmpp;

create function pmpp.by_partition(parent regclass, query text) returns text[]
language plpgsql stable parallel restricted security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    pieces text[];
begin
    perform pmpp._relation_to_cut(parent, 'parent', '{r,p,f,m,i,I}',
        'Give a table, a materialized view or an index, partitioned or not.');
    -- A table with inheritance children has rows of its own, to which ONLY keeps its query. A
    -- partitioned table has none; it stands for itself only if it has no partitions.
    with tree as (
        select t.oid, t.relkind in ('p', 'I') as is_partitioned,
               format('%I.%I', n.nspname, t.relname) as name
          from pmpp._relation_tree(parent) t join pg_namespace n on n.oid = t.relnamespace
    )
    select array_agg(
               case when not t.is_partitioned and exists (select from pg_inherits i where i.inhparent = t.oid)
                    then 'only ' || t.name else t.name end
               order by t.name collate "C")
      into pieces
      from tree t
     where not t.is_partitioned
        or t.oid = parent and not exists (select from tree leaf where not leaf.is_partitioned);
    return pmpp._cut(query, '{partition}', pieces);
end
$$;
comment on function pmpp.by_partition(regclass, text) is
    'one query for each partition or inheritance child, with its name in place of {partition}';
revoke all on function pmpp.by_partition(regclass, text) from public;
grant execute on function pmpp.by_partition(regclass, text) to pmpp;
