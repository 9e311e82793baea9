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
revoke all on function pmpp._load() from public;
grant execute on function pmpp._load() to pmpp;

create function pmpp._read_user_mapping() returns void
language plpython3u volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
GD["pmpp @VERSION@"].read_user_mapping(plpy)
$$;
comment on function pmpp._read_user_mapping() is
    'internal: let pmpp read the user mapping that applies to its caller; gives nothing to SQL';
revoke all on function pmpp._read_user_mapping() from public;
grant execute on function pmpp._read_user_mapping() to pmpp;

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
revoke all on function pmpp._hand_over(pmpp.query_manifest[]) from public;
grant execute on function pmpp._hand_over(pmpp.query_manifest[]) to pmpp;

create function pmpp._handed_json(key bigint) returns json
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].handed_json(plpy, key)
$$;
comment on function pmpp._handed_json(bigint) is
    'internal: the manifest in JSON that a form without a row type has handed over';
revoke all on function pmpp._handed_json(bigint) from public;
grant execute on function pmpp._handed_json(bigint) to pmpp;

create function pmpp._read_json(key bigint) returns bigint
language plpgsql volatile parallel unsafe security invoker
as $$
begin
    return pmpp._hand_over(pmpp.to_query_manifest_array(pmpp._handed_json(key)));
end
$$;
comment on function pmpp._read_json(bigint) is
    'internal: read a manifest in JSON that was handed over, and hand it over as query_manifest[]';
revoke all on function pmpp._read_json(bigint) from public;
grant execute on function pmpp._read_json(bigint) to pmpp;

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
revoke all on function pmpp._debug(text) from public;
grant execute on function pmpp._debug(text) to pmpp;

create function pmpp._rows(key bigint, column_types oid[], is_tagged boolean)
returns setof record
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].rows(plpy, key, column_types, is_tagged=is_tagged)
$$;
comment on function pmpp._rows(bigint, oid[], boolean) is
    'internal: run a manifest that was handed over, whose queries return columns of these types';
revoke all on function pmpp._rows(bigint, oid[], boolean) from public;
grant execute on function pmpp._rows(bigint, oid[], boolean) to pmpp;

create function pmpp._columns(key bigint, column_types oid[], is_tagged boolean)
returns setof text[]
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].columns(plpy, key, column_types, is_tagged=is_tagged)
$$;
comment on function pmpp._columns(bigint, oid[], boolean) is
    'internal: run a manifest as _rows does, and return batches of rows, each an array literal for every column';
revoke all on function pmpp._columns(bigint, oid[], boolean) from public;
grant execute on function pmpp._columns(bigint, oid[], boolean) to pmpp;

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
revoke all on function pmpp._failure(bigint, pmpp._error) from public;
grant execute on function pmpp._failure(bigint, pmpp._error) to pmpp;

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
revoke all on function pmpp._raise(bigint, pmpp._error) from public;
grant execute on function pmpp._raise(bigint, pmpp._error) to pmpp;

-- The columns of a row type, and how each is unnested from b[n], where b is a row of _columns().
-- If the rows are tagged, the columns that say where a row is from come first.
-- The input functions of the types do what they do in an INSERT of the text: a type modifier is
-- applied by the type's own function, told that this is not an explicit cast, which would cut off
-- what is too long. That cannot be done for an array with a modifier, nor for elements that are
-- separated by something else than commas (box): unnested is null then.
-- A batch of one row has an element more than there are columns. Its values of some types, which may
-- be large, are not in an array literal: text, varchar, json, bytea and jsonb, SINGLE_TYPES in results.py.
create function pmpp._columns_of(row_type oid, relation oid, is_tagged boolean)
returns table (n bigint, name text, type oid, type_name text, unnested text, is_pseudo boolean)
language sql stable parallel safe security invoker
as $$
    select c.n, c.name, c.type, c.type_name,
           case
               when t.typarray operator(pg_catalog.=) 0 and c.typmod operator(pg_catalog.=) -1 then
                   pg_catalog.format('pg_catalog.unnest(b[%s]::pg_catalog.text[])::%s', c.n, c.type_name)
               when t.typarray operator(pg_catalog.=) 0 or t.typdelim operator(pg_catalog.<>) ',' then
                   null
               when c.typmod operator(pg_catalog.=) -1 then
                   t.one_column
               else (
                   select pg_catalog.format(
                              case when f.pronargs operator(pg_catalog.=) 3 then '%s(%s, %s, false)::%s' else '%2$s::%4$s' end,
                              f.oid::pg_catalog.regproc,
                              t.one_column, c.typmod, c.type_name)
                     from pg_catalog.pg_cast k
                     join pg_catalog.pg_proc f on f.oid operator(pg_catalog.=) k.castfunc
                    where k.castsource operator(pg_catalog.=) c.type
                      and k.casttarget operator(pg_catalog.=) c.type
               )
           end,
           t.typtype operator(pg_catalog.=) 'p'
      from (
          select pg_catalog.row_number() over (order by place), pg_catalog.count(*) over (), column_name,
                 type, typmod, pg_catalog.format_type(type, typmod)
            from (
                select attnum, attname::pg_catalog.text, atttypid, atttypmod
                  from pg_catalog.pg_attribute
                 where attrelid operator(pg_catalog.=) relation
                   and attnum operator(pg_catalog.>) 0
                   and not attisdropped
                union all
                select 1, 'value', row_type, -1 where relation operator(pg_catalog.=) 0
                union all
                select tag.* from (values
                    (-3, 'item', 'pg_catalog.int4'::pg_catalog.regtype, -1),
                    (-2, 'connection', 'pg_catalog.text', -1),
                    (-1, 'query_number', 'pg_catalog.int4', -1)) tag
                 where is_tagged
            ) a(place, column_name, type, typmod)
      ) c(n, count, name, type, typmod, type_name)
     cross join lateral (
          select typtype, typarray, typdelim,
                 pg_catalog.format(
                     case when oid operator(pg_catalog.=) any ('{25,1043,114,17,3802}'::pg_catalog.oid[])
                          then 'pg_catalog.unnest(case when b[%4$s] is null then b[%1$s]::%2$s else array[b[%1$s]::%3$s] end)'
                          else 'pg_catalog.unnest(b[%1$s]::%2$s)' end,
                     c.n, pg_catalog.format_type(typarray, -1), pg_catalog.format_type(oid, -1), c.count operator(pg_catalog.+) 1) as one_column
            from pg_catalog.pg_type
           where oid operator(pg_catalog.=) c.type
          offset 0
     ) t
$$;
comment on function pmpp._columns_of(oid, oid, boolean) is
    'internal: the columns of a row type, or of a scalar type as one, and how to unnest a batch of each';
revoke all on function pmpp._columns_of(oid, oid, boolean) from public;
grant execute on function pmpp._columns_of(oid, oid, boolean) to pmpp;

-- The statement that runs the manifest with a key ($1) and returns rows of a type; if they are tagged, as the
-- last of four columns. It is parsed under the search_path of the caller, as are the names of types
-- that it contains. Custom plans would be made anew for each call, which takes 0.3 ms.
create function pmpp._rows_statement(row_type regtype, is_tagged boolean default false) returns text
language plpgsql stable parallel unsafe security invoker
set plan_cache_mode = force_generic_plan
as $$
declare
    tags constant pg_catalog.int4 := case when is_tagged then 3 else 0 end;
    base pg_catalog.pg_type;
    columns pg_catalog.record;
    statement pg_catalog.text;
begin
    select * into strict base from pg_catalog.pg_type where oid operator(pg_catalog.=) row_type;
    while base.typtype operator(pg_catalog.=) 'd' loop
        select * into strict base from pg_catalog.pg_type where oid operator(pg_catalog.=) base.typbasetype;
    end loop;
    if base.typtype operator(pg_catalog.=) 'p' then
        raise invalid_parameter_value using
            message = pg_catalog.format('the row type must be a named type, not %s', row_type),
            hint = 'Write null::name_of_a_table_or_type, or leave the row type out and write a column definition list.';
    end if;

    select pg_catalog.array_agg(c.type order by c.n) filter (where c.n operator(pg_catalog.>) tags) as types,
           pg_catalog.string_agg(pg_catalog.format('c%s', c.n), ', ' order by c.n)
               filter (where c.n operator(pg_catalog.>) tags) as names,
           pg_catalog.string_agg(pg_catalog.format('c%s %s', c.n, c.type_name), ', ' order by c.n) as definitions,
           pg_catalog.string_agg(pg_catalog.format('%s as c%s', c.unnested, c.n), ', ' order by c.n) as unnested,
           pg_catalog.bool_and(c.unnested is not null) as can_unnest,
           pg_catalog.string_agg(pg_catalog.format('%I %s', c.name, c.type_name), ', ' order by c.n)
               filter (where c.is_pseudo) as pseudo
      into columns
      from pmpp._columns_of(row_type, base.typrelid, is_tagged) c;
    if columns.types is null then
        raise invalid_parameter_value using
            message = pg_catalog.format('the row type %s has no columns', row_type);
    elsif columns.pseudo is not null then
        raise invalid_parameter_value using
            message = pg_catalog.format('the row type %s has columns that no query can return: %s', row_type, columns.pseudo),
            hint = 'Create a type with the other columns, and have the queries return those.';
    end if;

    if columns.can_unnest then
        statement := pg_catalog.format('select %s from (select pmpp._columns($1, %L, %L) as b) s',
            columns.unnested, columns.types, is_tagged);
    else
        statement := pg_catalog.format('select * from pmpp._rows($1, %L, %L) as (%s)',
            columns.types, is_tagged, columns.definitions);
    end if;
    if base.typtype operator(pg_catalog.<>) 'c' then
        return statement;
    elsif is_tagged then
        return pg_catalog.format('select c1, c2, c3, row(%s)::%s from (%s) q',
            columns.names, pg_catalog.format_type(row_type, -1), statement);
    elsif base.oid operator(pg_catalog.<>) row_type then
        -- RETURN QUERY does not check the constraints of a domain over a composite type: a cast does.
        return pg_catalog.format('select (d.r).* from (select row(%s)::%s as r from (%s) q offset 0) d',
            columns.names, pg_catalog.format_type(row_type, -1), statement);
    end if;
    return statement;
end
$$;
comment on function pmpp._rows_statement(regtype, boolean) is
    'internal: the statement that runs a manifest and returns rows of a type';
revoke all on function pmpp._rows_statement(regtype, boolean) from public;
grant execute on function pmpp._rows_statement(regtype, boolean) to pmpp;
