-- The operators < and >= of a type that has an order. They are those of its default btree operator
-- class: one for the type itself, for one that it is binary coercible to, or for all of its kind.
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
revoke all on function pmpp._order_operators(oid) from public;
grant execute on function pmpp._order_operators(oid) to pmpp;

-- How many blocks a table, its partitions and its children have. Citus keeps the blocks of its tables in
-- shards on other servers.
create function pmpp._tree_blocks(root oid) returns bigint
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    size constant text := 'select sum(%s) / current_setting(''block_size'')::integer from pmpp._relation_tree($1) t';
    blocks bigint;
begin
    execute format(size, case when exists (select from pg_extension where extname = 'citus') then
        'case when has_table_privilege(t.oid, ''select'')
                   and exists (select from pg_catalog.pg_dist_partition p where p.logicalrelid = t.oid)
              then pg_catalog.citus_relation_size(t.oid) else pg_relation_size(t.oid) end'
        else 'pg_relation_size(t.oid)' end)
       into blocks using root;
    return blocks;
end
$$;
comment on function pmpp._tree_blocks(oid) is
    'internal: how many blocks a table has, with its partitions and children';
revoke all on function pmpp._tree_blocks(oid) from public;
grant execute on function pmpp._tree_blocks(oid) to pmpp;

-- A query for what is known of a column's values: rows of a value, the weight of the rows between
-- the value before it and it, and the weight of its own rows. It comes from the planner's
-- statistics; without them, or if they have too few values for so many chunks, from a sample of the
-- rows: those of about a thousand blocks, and never more than to sort in a moment. PostgreSQL cannot
-- choose blocks of views and foreign tables, and reads them whole to choose rows. It will be run under
-- any search_path.
create function pmpp._key_weights(root pg_class, key name, type text, chunks integer) returns text
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    schema name := (select nspname from pg_namespace where oid = root.relnamespace);
    weights text;
    blocks bigint;
    foreign_tables oid[];
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
        foreign_tables := array(select t.oid from pmpp._relation_tree(root.oid) t where t.relkind = 'f');
        sample := format('tablesample system (%s)', 100000.0 / blocks);
        if foreign_tables <> '{}' then
            sample := format(
                '%s where tableoid operator(pg_catalog.<>) all (%L::pg_catalog.oid[]) or pg_catalog.random() operator(pg_catalog.<) %s',
                sample, foreign_tables, 1000.0 / blocks);
        end if;
    end if;
    return format(
        'select %1$I, 0::pg_catalog.float8, 1::pg_catalog.float8 '
        'from (select %1$I from %2$I.%3$I %4$s order by pg_catalog.random() limit %5$s) sample',
        key, schema, root.relname, sample, greatest(30000, 30 * chunks::bigint));
end
$$;
comment on function pmpp._key_weights(pg_class, name, text, integer) is
    'internal: a query for how the values of a column are distributed';
revoke all on function pmpp._key_weights(pg_class, name, text, integer) from public;
grant execute on function pmpp._key_weights(pg_class, name, text, integer) to pmpp;

-- How conditions on a column are written. Operators compare it with literals of the type that its
-- domain is over, and take no domains over enums. A row of nulls is null, but ordered like other rows.
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
    select * into attribute from pg_attribute where attrelid = tbl and attname = key and attnum > 0 and not attisdropped;
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
revoke all on function pmpp._key_column(regclass, name) from public;
grant execute on function pmpp._key_column(regclass, name) to pmpp;

-- With its own search_path, under which the names of tables and the like are written with schemas.
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
revoke all on function pmpp._key_literal(anyelement, text) from public;
grant execute on function pmpp._key_literal(anyelement, text) to pmpp;

-- The values, as literals, that cut a column into at most so many chunks of about the same number
-- of rows. Every value has its place, from 0 to that number: the weight of the rows below it. An
-- ideal edge is at each whole number between, and the value whose place is nearest becomes one.
-- This reads the table, so it sets no search_path: views and row security may need the caller's.
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
        value as (
            select value, pg_catalog.sum(below) as below, pg_catalog.sum(own) as own from weight group by value
        ), ranked as (
            select value,
                   pg_catalog.sum(below operator(pg_catalog.+) own) over (order by value nulls first)
                       operator(pg_catalog.-) own as rank,
                   pg_catalog.sum(below operator(pg_catalog.+) own) over () as total
              from value
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
    'internal: the values at which to cut a column, as literals';
revoke all on function pmpp._key_edges(pg_class, name, text, text, integer) from public;
grant execute on function pmpp._key_edges(pg_class, name, text, text, integer) to pmpp;

create function pmpp._key_conditions(null_test text, less text, not_less text, edges text[]) returns text[]
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $$
    select array(
        select case
               when cardinality(e.edges) = 0 then 'true'
               when i = 0 then format('(%%1$s %s or %%1$s %s %s)', null_test, e.less, e.edges[1])
               when i = cardinality(e.edges) then format('(%%1$s %s %s)', e.not_less, e.edges[i])
               else format('(%%1$s %s %s and %%1$s %s %s)', e.not_less, e.edges[i], e.less, e.edges[i + 1])
               end
          from (
            select replace(less, '%', '%%') as less,
                   replace(not_less, '%', '%%') as not_less,
                   array(select replace(v, '%', '%%') from unnest(edges) with ordinality u(v, n) order by n) as edges
          ) e,
               generate_series(0, cardinality(e.edges)) i
         order by i
    )
$$;
comment on function pmpp._key_conditions(text, text, text, text[]) is
    'internal: a condition for each range between two edges, and for what is below and above all, see _cut_chunks';
revoke all on function pmpp._key_conditions(text, text, text, text[]) from public;
grant execute on function pmpp._key_conditions(text, text, text, text[]) to pmpp;

-- The settings make literals that every session reads as the same value. DateStyle keeps its order
-- of day and month, which views may need.
create function pmpp.by_key(tbl regclass, key name, query text, chunks integer default null) returns text[]
language plpgsql volatile parallel unsafe security invoker
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 1
set array_nulls = on
as $$
declare
    root pg_catalog.pg_class := pmpp._relation_to_cut(tbl, 'tbl', '{r,p,f,m,v}', 'Give a table or a view.');
    col pg_catalog.record;
    edges pg_catalog.text[];
begin
    perform pmpp._cut_chunks(query, '', '{}'); -- an error before a long read
    select * into col from pmpp._key_column(tbl, key);
    edges := pmpp._key_edges(root, key, col.type_name, col.collation_clause, pmpp._chunk_count(chunks));
    return pmpp._cut_chunks(
        query, col.operand, pmpp._key_conditions(col.null_test, col.less, col.not_less, edges));
end
$$;
comment on function pmpp.by_key(regclass, name, text, integer) is
    'one query for each range of values of a column, with a condition on it in place of {chunk}';
revoke all on function pmpp.by_key(regclass, name, text, integer) from public;
grant execute on function pmpp.by_key(regclass, name, text, integer) to pmpp;
