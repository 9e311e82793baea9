-- What stands between the SQL functions and the Python package.

create function pmpp._load() returns void
language plpython3u volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
import gc, sys
(row,) = plpy.execute("select setting from pg_config where name = 'PKGLIBDIR'")
directory = f"{row['setting']}/pmpp/@VERSION@"
if directory not in sys.path:
    sys.path.insert(0, directory)

def is_of_others(name):
    module = sys.modules.get(name)
    return module and not module.__file__.startswith(directory + "/")

# The garbage collector would take 6 % of the time of these imports.
is_collecting = gc.isenabled()
gc.disable()
try:
    import pmpp
    strangers = [sys.modules[name].__file__ for name in filter(is_of_others, ("pmpp", "psycopg"))]
    if not strangers:
        from pmpp import errors
        from pmpp.plpython import libpq
        libpq.load()
        from pmpp.plpython import entry_points
except ImportError as ex:
    plpy.error(f"the Python package of pmpp @VERSION@ cannot be loaded: {ex}", sqlstate="58P01",
               detail=f"It is expected in {directory}.", hint="Install pmpp @VERSION@ again, or, if it was replaced by another version, ALTER EXTENSION pmpp UPDATE.")
except errors.PmppError as ex:
    plpy.error(ex.message, sqlstate=ex.sqlstate, detail=ex.detail, hint=ex.hint)
finally:
    # What was imported stays. Frozen, it costs later collections nothing.
    gc.freeze()
    if is_collecting:
        gc.enable()
if strangers:
    plpy.error("another version of pmpp or psycopg is already loaded in this session", sqlstate="55000",
               detail=f"Loaded: {', '.join(strangers)}. Needed: those in {directory}.",
               hint="Start a new session.")
GD["pmpp @VERSION@"] = entry_points
$$;
comment on function pmpp._load() is
    'internal: load the Python package of this version, found in a directory that only superusers can write';

create function pmpp._read_user_mapping() returns void
language plpython3u volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
GD["pmpp @VERSION@"].read_user_mapping(plpy)
$$;
comment on function pmpp._read_user_mapping() is
    'internal: let pmpp read the user mapping that applies to its caller; gives nothing to SQL';

-- auto_explain, for example, logs the statements that a function runs, with their parameters and the
-- constants in their plans. So a manifest, whose connection strings may contain passwords, is no
-- parameter of such a statement. An SQL wrapper function hands it over in an expression that PL/pgSQL
-- evaluates without a statement, and the statement has the key in its place. For the same reason the
-- functions that read a manifest set plan_cache_mode: generic plans do not contain the values.
create function pmpp._hand_over(query_manifest pmpp.query_manifest[]) returns bigint
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].hand_over(query_manifest)
$$;
comment on function pmpp._hand_over(pmpp.query_manifest[]) is
    'internal: keep a manifest for a statement, which names it by the key that this returns';

create function pmpp._handed_json(key bigint) returns json
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].handed_json(plpy, key)
$$;
comment on function pmpp._handed_json(bigint) is
    'internal: the manifest in JSON that a form without a row type has handed over';

create function pmpp._read_json(key bigint) returns bigint
language plpgsql volatile parallel unsafe security invoker
as $$
begin
    return pmpp._hand_over(pmpp.to_query_manifest_array(pmpp._handed_json(key)));
end
$$;
comment on function pmpp._read_json(bigint) is
    'internal: read a manifest in JSON that was handed over, and hand it over as query_manifest[]';

-- plpy.debug() is of level DEBUG2, and RAISE DEBUG is of level DEBUG1.
create function pmpp._debug(message text) returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    raise debug '%', message;
end
$$;
comment on function pmpp._debug(text) is
    'internal: report a step of a call at the level DEBUG1';

create function pmpp._rows(key bigint, column_types oid[])
returns setof record
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].rows(plpy, key, column_types)
$$;
comment on function pmpp._rows(bigint, oid[]) is
    'internal: run a manifest that was handed over, whose queries return columns of these types, and return rows with three columns in front that say where each is from';

create function pmpp._columns(key bigint, column_types oid[])
returns setof text[]
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].columns(plpy, key, column_types)
$$;
comment on function pmpp._columns(bigint, oid[]) is
    'internal: run a manifest as _rows does, and return batches of rows, each an array literal for every column, and behind them where the rows are from';

create type pmpp._error as (
    sqlstate text,
    message text,
    detail text,
    hint text,
    schema_name text,
    table_name text,
    column_name text,
    datatype_name text,
    constraint_name text
);
comment on type pmpp._error is 'internal: the fields of an error that PL/pgSQL can raise';

create function pmpp._failure(key bigint, error pmpp._error) returns pmpp._error
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: return error
return GD["pmpp @VERSION@"].failure(key, error)
$$;
comment on function pmpp._failure(bigint, pmpp._error) is
    'internal: the error behind the one that the SQL wrapper function of a call has caught';

-- A wrapper function assigns what this returns, though it never returns: PERFORM would add a line to
-- the CONTEXT.
create function pmpp._raise(key bigint, error pmpp._error) returns pmpp._error
language plpgsql volatile parallel unsafe security invoker
as $$
declare
    hint pg_catalog.text;
    detail pg_catalog.text;
    names pg_catalog.text;
begin
    -- PL/Python writes the name of the class in front of an error's message.
    error.message := pg_catalog.regexp_replace(error.message, '^((plpy|spiexceptions)[.][A-Za-z]+: )+', '');
    error := pmpp._failure(key, error);
    detail := case when error.detail operator(pg_catalog.<>) '' then error.detail end;
    hint := case when error.hint operator(pg_catalog.<>) '' then error.hint end;
    names := pg_catalog.concat(error.schema_name, error.table_name, error.column_name,
                               error.datatype_name, error.constraint_name);
    -- RAISE takes no field that is null, and psql would show a detail or a hint that is empty. A name
    -- that is missing is empty for whoever reads the names.
    if names operator(pg_catalog.<>) '' and hint is null then
        raise using errcode = error.sqlstate, message = error.message, detail = coalesce(detail, ''),
            schema = coalesce(error.schema_name, ''), table = coalesce(error.table_name, ''),
            column = coalesce(error.column_name, ''), datatype = coalesce(error.datatype_name, ''),
            constraint = coalesce(error.constraint_name, '');
    elsif names operator(pg_catalog.<>) '' then
        raise using errcode = error.sqlstate, message = error.message, detail = coalesce(detail, ''), hint = hint,
            schema = coalesce(error.schema_name, ''), table = coalesce(error.table_name, ''),
            column = coalesce(error.column_name, ''), datatype = coalesce(error.datatype_name, ''),
            constraint = coalesce(error.constraint_name, '');
    elsif detail is null and hint is null then
        raise using errcode = error.sqlstate, message = error.message;
    elsif hint is null then
        raise using errcode = error.sqlstate, message = error.message, detail = detail;
    elsif detail is null then
        raise using errcode = error.sqlstate, message = error.message, hint = hint;
    else
        raise using errcode = error.sqlstate, message = error.message, detail = detail, hint = hint;
    end if;
end
$$;
comment on function pmpp._raise(bigint, pmpp._error) is
    'internal: raise the error behind the one that the SQL wrapper function of a call has caught';

-- The columns of a row type, and for each an expression that unnests it from a batch of rows, b, as
-- _columns() returns it.
--
-- A batch has an array literal for each column, and null in the element after them. A batch of a
-- single row has the values themselves, and an empty text in that element. A single value may be large, and an array literal is
-- a copy of it. A cast from text makes no copy, but it calls the input function of the type, as the
-- array literal does, only if nobody has created another cast. So casts are used for a few types of
-- PostgreSQL itself, and for domains over them that have no type modifier.
--
-- The expression is null where arrays cannot be used: if commas do not separate the elements of an
-- array of the type (box), and for an array with a type modifier. An array without a modifier is
-- unnested as text and cast, because an array type has no array type of its own.
--
-- An explicit cast to a type with a modifier cuts off what is too long. An INSERT raises an error
-- instead: it calls the function that casts the type to itself, and says that the cast is not
-- explicit.
--
-- OFFSET 0 has PostgreSQL look up each type by its index. Its generic plan would read whole catalogs.
create function pmpp._columns_of(row_type oid, relation oid)
returns table (n bigint, name text, type oid, type_name text, unnested text, is_pseudo boolean)
language sql stable parallel safe security invoker
as $$
    with listed (place, name, type, typmod) as (
        select attnum, attname::pg_catalog.text, atttypid, atttypmod
          from pg_catalog.pg_attribute
         where attrelid operator(pg_catalog.=) relation
           and attnum operator(pg_catalog.>) 0
           and not attisdropped
        union all
        select 1, 'value', row_type, -1 where relation operator(pg_catalog.=) 0
    ), typed as (
        select l.*, t.typtype, t.typarray, t.typdelim, t.typbasetype, t.typtypmod,
               pg_catalog.row_number() over (order by l.place) as n,
               pg_catalog.count(*) over () as count,
               pg_catalog.format_type(l.type, l.typmod) as type_name,
               case when t.typarray operator(pg_catalog.=) 0
                    then 'pg_catalog.text'::pg_catalog.regtype else l.type end as element
          from listed l
         cross join lateral (
            select * from pg_catalog.pg_type where oid operator(pg_catalog.=) l.type offset 0
         ) t
    ), expression as (
        select t.*,
               pg_catalog.format(
                   case when case when t.typtype operator(pg_catalog.=) 'd' and t.typtypmod operator(pg_catalog.=) -1
                                  then t.typbasetype else t.element end operator(pg_catalog.=) any (array[
                            'pg_catalog.text', 'pg_catalog.varchar', 'pg_catalog.bytea',
                            'pg_catalog.json', 'pg_catalog.jsonb']::pg_catalog.regtype[])
                        then 'pg_catalog.unnest(case when b[%1$s] is null then b[%2$s]::%3$s[] '
                             'else array[b[%2$s]::%3$s] end)'
                        else 'pg_catalog.unnest(case when b[%1$s] is null then b[%2$s] '
                             'else array[b[%2$s]]::pg_catalog.text end::%3$s[])'
                   end,
                   t.count operator(pg_catalog.+) 1, t.n, pg_catalog.format_type(t.element, -1)) as elements
          from typed t
    )
    select e.n, e.name, e.type, e.type_name,
           case
               when e.typarray operator(pg_catalog.=) 0 and e.typmod operator(pg_catalog.=) -1 then
                   pg_catalog.format('%s::%s', e.elements, e.type_name)
               when e.typarray operator(pg_catalog.=) 0 or e.typdelim operator(pg_catalog.<>) ',' then
                   null
               when e.typmod operator(pg_catalog.=) -1 then
                   e.elements
               when f.pronargs operator(pg_catalog.=) 3 then
                   pg_catalog.format('%s(%s, %s, false)::%s',
                       f.oid::pg_catalog.regproc, e.elements, e.typmod, e.type_name)
               when f.pronargs operator(pg_catalog.=) 2 then
                   pg_catalog.format('%s::%s', e.elements, e.type_name)
           end,
           e.typtype operator(pg_catalog.=) 'p'
      from expression e
      left join lateral (
        select p.oid, p.pronargs
          from pg_catalog.pg_cast k
          join pg_catalog.pg_proc p on p.oid operator(pg_catalog.=) k.castfunc
         where k.castsource operator(pg_catalog.=) e.type and k.casttarget operator(pg_catalog.=) e.type
           and e.typmod operator(pg_catalog.<>) -1
        offset 0
      ) f on true
$$;
comment on function pmpp._columns_of(oid, oid) is
    'internal: the columns of a row type, or of a scalar type as one, and how to unnest a batch of each';

-- The statement that runs the manifest whose key is $1 and returns rows of a type. If they are
-- tagged, the row is the last of four columns. PostgreSQL parses the statement under the search_path
-- of the caller, so this function finds the names of types under that too. A generic plan saves
-- planning the query below again for each call.
create function pmpp._rows_statement(row_type regtype, is_tagged boolean default false) returns text
language plpgsql stable parallel unsafe security invoker
set plan_cache_mode = force_generic_plan
as $$
declare
    base pg_catalog.pg_type;
    cols pg_catalog.record;
    columns_query pg_catalog.text;
    row_value pg_catalog.text;
begin
    select * into strict base from pg_catalog.pg_type where oid operator(pg_catalog.=) row_type;
    while base.typtype operator(pg_catalog.=) 'd' loop
        select * into strict base from pg_catalog.pg_type where oid operator(pg_catalog.=) base.typbasetype;
    end loop;
    if base.typtype operator(pg_catalog.=) 'p' then
        raise invalid_parameter_value using
            message = pg_catalog.format('the row type must be a named type, not %s', row_type),
            hint = 'Write null::name_of_a_table_or_type, '
                'or leave the row type out and write a column definition list.';
    end if;

    select pg_catalog.count(*) as count,
           pg_catalog.array_agg(c.type order by c.n) as types,
           pg_catalog.string_agg('c' operator(pg_catalog.||) c.n, ', ' order by c.n) as names,
           pg_catalog.string_agg(pg_catalog.format('c%s %s', c.n, c.type_name), ', ' order by c.n) as definitions,
           pg_catalog.string_agg(pg_catalog.format('%s as c%s', c.unnested, c.n), ', ' order by c.n) as unnested,
           pg_catalog.bool_and(c.unnested is not null) as can_unnest,
           pg_catalog.string_agg(pg_catalog.format('%I %s', c.name, c.type_name), ', ' order by c.n)
               filter (where c.is_pseudo) as pseudo
      into cols
      from pmpp._columns_of(row_type, base.typrelid) c;
    if cols.types is null then
        raise invalid_parameter_value using
            message = pg_catalog.format('the row type %s has no columns', row_type);
    elsif cols.pseudo is not null then
        raise invalid_parameter_value using
            message = pg_catalog.format(
                'the row type %s has columns that no query can return: %s', row_type, cols.pseudo),
            hint = 'Create a type with the other columns, and have the queries return those.';
    end if;

    if cols.can_unnest then
        columns_query := pg_catalog.format('select %s%s from (select pmpp._columns($1, %L) as b) batch',
            case when is_tagged then pg_catalog.format(
                'b[%s]::pg_catalog.int4 as item, b[%s] as connection, b[%s]::pg_catalog.int4 as query_number, ',
                cols.count operator(pg_catalog.+) 2, cols.count operator(pg_catalog.+) 3,
                cols.count operator(pg_catalog.+) 4) end,
            cols.unnested, cols.types);
    else
        columns_query := pg_catalog.format(
            'select %s%s from pmpp._rows($1, %L) '
            'as (item pg_catalog.int4, connection pg_catalog.text, query_number pg_catalog.int4, %s)',
            case when is_tagged then 'item, connection, query_number, ' end,
            cols.names, cols.types, cols.definitions);
    end if;
    row_value := pg_catalog.format('row(%s)::%s', cols.names, pg_catalog.format_type(row_type, -1));
    return case
        when base.typtype operator(pg_catalog.<>) 'c' then
            columns_query
        when is_tagged then
            pg_catalog.format('select item, connection, query_number, %s from (%s) q', row_value, columns_query)
        when base.oid operator(pg_catalog.<>) row_type then
            -- RETURN QUERY does not check the constraints of a domain over a composite type. A cast does.
            pg_catalog.format(
                'select (d.r).* from (select %s as r from (%s) q offset 0) d', row_value, columns_query)
        else
            columns_query
    end;
end
$$;
comment on function pmpp._rows_statement(regtype, boolean) is
    'internal: the statement that runs a manifest and returns rows of a type';
