-- The operators < and >= of the default btree operator class of a type. The class is for the type
-- itself, for a type that it is binary coercible to, or for all types of its kind.
create function pmpp._order_operators(type oid, out less text, out not_less text)
language sql stable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $$
    select max(s.name) filter (where s.strategy = 1), max(s.name) filter (where s.strategy = 4)
      from (
        select a.amopstrategy as strategy, format('operator(%I.%s)', n.nspname, o.oprname) as name
          from pg_amop a
          join pg_operator o on o.oid = a.amopopr
          join pg_namespace n on n.oid = o.oprnamespace
         where (a.amopfamily, a.amoplefttype, a.amoprighttype) = (
            select c.opcfamily, c.opcintype, c.opcintype
              from pg_type t
              join pg_opclass c on c.opcdefault and c.opcmethod = (select oid from pg_am where amname = 'btree')
              join pg_type input on input.oid = c.opcintype
              left join pg_cast coercion on coercion.castsource = t.oid and coercion.casttarget = input.oid
                                        and coercion.castmethod = 'b' and coercion.castcontext = 'i'
             where t.oid = type
               and (input.oid = t.oid
                    or coercion.oid is not null
                    or input.oid = case t.typtype
                        when 'e' then 'anyenum'::regtype
                        when 'r' then 'anyrange'::regtype
                        when 'm' then 'anymultirange'::regtype
                        when 'c' then 'record'::regtype
                        when 'b' then case when t.typsubscript = 'array_subscript_handler'::regproc
                                           then 'anyarray'::regtype end
                       end)
             order by input.oid = t.oid desc, coercion.oid is not null desc, input.typispreferred desc
             limit 1
         )
      ) s
$$;
comment on function pmpp._order_operators(oid) is
    'internal: the operators < and >= of a type''s default order';

-- The tables of Citus have no blocks here: Citus keeps them in shards on other servers.
create function pmpp._tree_blocks(root oid) returns bigint
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    size bigint;
begin
    if exists (select from pg_extension where extname = 'citus') then
        select sum(case when has_table_privilege(t.oid, 'select')
                             and exists (select from pg_dist_partition p where p.logicalrelid = t.oid)
                        then citus_relation_size(t.oid) else pg_relation_size(t.oid) end)
          into size from pmpp._relation_tree(root) t;
    else
        select sum(pg_relation_size(t.oid)) into size from pmpp._relation_tree(root) t;
    end if;
    return size / current_setting('block_size')::integer;
end
$$;
comment on function pmpp._tree_blocks(oid) is
    'internal: how many blocks a table has, with its partitions and children';

-- A query for how the values of a column are distributed. Its rows are a value, the weight of the
-- rows between the value before and this one, and the weight of the rows that have this value.
-- The statistics of the planner have these weights. If there are no statistics, or too few values in
-- them for so many chunks, the rows are a sample, each with the same weight: the rows of about 1,000
-- blocks, and no more rows than PostgreSQL sorts in a moment. PostgreSQL can choose blocks neither of
-- views nor of foreign tables, so it reads them completely to choose rows.
-- _key_edges() runs the query under the search_path of the caller, so all names in it are qualified.
create function pmpp._key_weights(root pg_class, key name, type text, chunks integer) returns text
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    schema name := (select nspname from pg_namespace where oid = root.relnamespace);
    weights text;
    blocks bigint;
    sample text := '';
begin
    with known as (
        select null_frac as nulls,
               most_common_vals::text::text[] as common,
               most_common_freqs as frequencies,
               histogram_bounds::text::text[] as bounds,
               greatest(0, 1 - null_frac - coalesce((select sum(f) from unnest(most_common_freqs) f), 0)) as rest
          from pg_stats
         where schemaname = schema and tablename = root.relname and attname = key
           and inherited = exists (select from pg_inherits where inhparent = root.oid)
           and (most_common_vals is not null or histogram_bounds is not null)
    ), weighed (value, below, own) as (
        select null, 0, nulls from known
        union all
        select u.value, 0, u.frequency from known, unnest(common, frequencies) u(value, frequency)
        union all
        select u.value, case n when 1 then 0 else rest / (cardinality(bounds) - 1) end, 0
          from known, unnest(bounds) with ordinality u(value, n)
    )
    select 'values ' || string_agg(
               format('(%L::%s, %s::pg_catalog.float8, %s::pg_catalog.float8)', value, type, below, own), ', ')
      into weights
      from weighed
     where not exists (select from known where cardinality(bounds) + coalesce(cardinality(common), 0) <= chunks);
    if weights is not null then
        return weights;
    end if;
    blocks := pmpp._tree_blocks(root.oid);
    if blocks > 1000 and root.relkind in ('r', 'm', 'p') then
        sample := format(
            'tablesample system (%s) where tableoid operator(pg_catalog.<>) all (%L::pg_catalog.oid[]) '
            'or pg_catalog.random() operator(pg_catalog.<) %s',
            100000.0 / blocks,
            array(select t.oid from pmpp._relation_tree(root.oid) t where t.relkind = 'f'),
            1000.0 / blocks);
    end if;
    return format(
        'select %1$I, 0::pg_catalog.float8, 1::pg_catalog.float8 '
        'from (select %1$I from %2$I.%3$I %4$s order by pg_catalog.random() limit %5$s) sample',
        key, schema, root.relname, sample, greatest(30000, 30 * chunks::bigint));
end
$$;
comment on function pmpp._key_weights(pg_class, name, text, integer) is
    'internal: a query for how the values of a column are distributed';

-- How conditions on a column are written. If its type is a domain, the literals are of the type that
-- the domain is over. Operators do not take domains over enums. IS NULL is true for a row of nulls,
-- which PostgreSQL sorts like other rows.
create function pmpp._key_column(
    tbl regclass, key name,
    out type_name text, out collation_clause text,
    out operand text, out null_test text, out less text, out not_less text
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    attribute pg_attribute;
    type pg_type;
begin
    if key is null then
        raise null_value_not_allowed using message = 'key must not be null';
    end if;
    select * into attribute
      from pg_attribute where attrelid = tbl and attname = key and attnum > 0 and not attisdropped;
    if not found then
        raise undefined_column using message = format('column %I of %s does not exist', key, tbl);
    elsif not has_column_privilege(tbl, key, 'select') then
        raise insufficient_privilege using message = format('permission denied for column %I of %s', key, tbl);
    end if;
    select * into type from pg_type where oid = attribute.atttypid;
    while type.typtype = 'd' loop
        select * into type from pg_type where oid = type.typbasetype;
    end loop;
    type_name := (select format('%I.%I', nspname, type.typname) from pg_namespace where oid = type.typnamespace);
    begin
        execute format('select null::%s as v group by v order by v', type_name);
    exception when undefined_function then
        raise undefined_function using
            message = format('%s cannot be cut by column %I: type %s has no order', tbl, key, type.oid::regtype),
            hint = 'Use a column of a type that has a default btree operator class, or by_ctid.';
    end;
    collation_clause := (
        select format(' collate %I.%I', n.nspname, c.collname)
          from pg_collation c join pg_namespace n on n.oid = c.collnamespace
         where c.oid = attribute.attcollation
    );
    operand := format('%I', key)
        || case when type.typtype = 'e' and type.oid <> attribute.atttypid then '::' || type_name else '' end;
    null_test := case type.typtype when 'c' then 'is not distinct from null' else 'is null' end;
    select o.less, o.not_less into less, not_less from pmpp._order_operators(type.oid) o;
end
$$;
comment on function pmpp._key_column(regclass, name) is
    'internal: how conditions on a column are written';

-- Its own search_path has PostgreSQL write names, as of tables, with their schemas.
create function pmpp._key_literal(value anyelement, type text) returns text
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    return format('%L::%s', value, type);
end
$$;
comment on function pmpp._key_literal(anyelement, text) is
    'internal: a value as a literal that means the same in every session';

-- The values, as literals, that are the edges of at most so many chunks of about the same number of
-- rows. The place of a value, from 0 to the number of chunks, is the weight of the rows before it. An
-- ideal edge is at each whole number between, and the value whose place is nearest becomes an edge: a
-- value is nearest to what lies between start and stop.
-- The query reads the table, so this function sets no search_path: views and row security may need
-- the caller's.
create function pmpp._key_edges(root pg_class, key name, type text, collation_clause text, chunks integer)
returns text[]
language plpgsql volatile parallel unsafe security invoker
as $$
declare
    edges pg_catalog.text[];
begin
    execute pg_catalog.format(
        $query$
        with weight (value, below, own) as (%s),
        summed as (
            select value, pg_catalog.sum(below) as below, pg_catalog.sum(own) as own from weight group by value
        ), ranked as (
            select value,
                   pg_catalog.sum(below operator(pg_catalog.+) own) over (order by value nulls first)
                       operator(pg_catalog.-) own as rank,
                   pg_catalog.sum(below operator(pg_catalog.+) own) over () as total
              from summed
        ), placed as (
            select value, $1 operator(pg_catalog.*) rank operator(pg_catalog./) total as place
              from ranked where rank operator(pg_catalog.>) 0
        ), nearest as (
            select value,
                   coalesce((pg_catalog.lag(place) over (order by value) operator(pg_catalog.+) place)
                       operator(pg_catalog./) 2, 0) as start,
                   least((place operator(pg_catalog.+) pg_catalog.lead(place) over (order by value))
                       operator(pg_catalog./) 2, $1 operator(pg_catalog.-) 1) as stop
              from placed
        )
        select pg_catalog.array_agg(pmpp._key_literal(value, $2) order by value)
          from nearest where pg_catalog.floor(stop) operator(pg_catalog.>) pg_catalog.floor(start)
        $query$,
        pmpp._key_weights(root, key, pg_catalog.concat(type, collation_clause), chunks))
    into edges using chunks, type;
    return coalesce(edges, '{}');
end
$$;
comment on function pmpp._key_edges(pg_class, name, text, text, integer) is
    'internal: the values that are the edges of chunks, as literals';

-- The conditions are format strings for _split(). A null sorts before the first edge.
create function pmpp._key_conditions(null_test text, less text, not_less text, edges text[]) returns text[]
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $$
    select array(
        select case
               when c.at_least is null and c.below is null then 'true'
               when c.at_least is null then format('(%%1$s %s or %%1$s %s)', null_test, c.below)
               when c.below is null then format('(%%1$s %s)', c.at_least)
               else format('(%%1$s %s and %%1$s %s)', c.at_least, c.below)
               end
          from unnest(null::text || edges, edges) with ordinality e(low, high, n),
               lateral (values (
                   replace(not_less || ' ' || e.low, '%', '%%'),
                   replace(less || ' ' || e.high, '%', '%%')
               )) c(at_least, below)
         order by e.n
    )
$$;
comment on function pmpp._key_conditions(text, text, text, text[]) is
    'internal: the conditions of the chunks that these edges lie between';

-- Under these settings, PostgreSQL writes literals that every session reads as the same value. The
-- order of day and month in DateStyle stays, because views may need it.
create function pmpp.by_key(tbl regclass, key name, query text, chunks integer default null) returns text[]
language plpgsql volatile parallel unsafe security invoker
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 1
set array_nulls = on
as $$
declare
    root pg_catalog.pg_class := pmpp._relation_to_split(tbl, 'tbl', '{r,p,f,m,v}', 'Give a table or a view.');
    col pg_catalog.record;
    edges pg_catalog.text[];
begin
    -- A query that cannot be split is an error before the table is read, which may take long.
    perform pmpp._split(query, '{chunk}', '{}');
    select * into col from pmpp._key_column(tbl, key);
    edges := pmpp._key_edges(root, key, col.type_name, col.collation_clause, pmpp._chunk_count(chunks));
    return pmpp._split(
        query, '{chunk}', pmpp._key_conditions(col.null_test, col.less, col.not_less, edges), col.operand);
end
$$;
comment on function pmpp.by_key(regclass, name, text, integer) is
    'one query for each range of values of a column, with a condition on it in place of {chunk}';
