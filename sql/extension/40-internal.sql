-- What stands between the SQL functions and the Python package.

create function @extschema@._load() returns void
language plpython3u volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
import sys
(row,) = plpy.execute("select setting from pg_config where name = 'PKGLIBDIR'")
directory = f"{row['setting']}/pmpp/@VERSION@"
if directory not in sys.path:
    sys.path.insert(0, directory)
try:
    import pmpp, psycopg
    strangers = [m.__file__ for m in (pmpp, psycopg) if not m.__file__.startswith(directory + "/")]
    if not strangers:
        from pmpp import server
except ImportError as ex:
    plpy.error(f"the Python package of pmpp @VERSION@ cannot be loaded: {ex}", sqlstate="58P01",
               detail=f"It is expected in {directory}.", hint="Install pmpp again with make install.")
if strangers:
    plpy.error("another version of pmpp or psycopg is already loaded in this session", sqlstate="55000",
               detail=f"Loaded: {', '.join(strangers)}. Needed: those in {directory}.",
               hint="Start a new session.")
GD["pmpp @VERSION@"] = server
$$;
comment on function @extschema@._load() is
    'internal: load the Python package of this version, found in a directory that only superusers can write';
revoke all on function @extschema@._load() from public;
grant execute on function @extschema@._load() to pmpp;

create function @extschema@._read_user_mapping() returns void
language plpython3u volatile parallel unsafe security definer
set search_path = pg_catalog, pg_temp
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select @extschema@._load()")
GD["pmpp @VERSION@"].read_user_mapping(plpy)
$$;
comment on function @extschema@._read_user_mapping() is
    'internal: let pmpp read the user mapping that applies to its caller; gives nothing to SQL';
revoke all on function @extschema@._read_user_mapping() from public;
grant execute on function @extschema@._read_user_mapping() to pmpp;

create function @extschema@._rows(query_manifest @extschema@.query_manifest[], column_types oid[])
returns setof record
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select @extschema@._load()")
return GD["pmpp @VERSION@"].rows(plpy, query_manifest, column_types)
$$;
comment on function @extschema@._rows(@extschema@.query_manifest[], oid[]) is
    'internal: run a manifest whose queries return columns of these types';
revoke all on function @extschema@._rows(@extschema@.query_manifest[], oid[]) from public;
grant execute on function @extschema@._rows(@extschema@.query_manifest[], oid[]) to pmpp;

create function @extschema@._failure(sqlstate text, message text, detail text, hint text) returns text[]
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: return [sqlstate, message, detail or None, hint or None]
return GD["pmpp @VERSION@"].failure(sqlstate, message, detail, hint)
$$;
comment on function @extschema@._failure(text, text, text, text) is
    'internal: the error behind the one that a front has caught';
revoke all on function @extschema@._failure(text, text, text, text) from public;
grant execute on function @extschema@._failure(text, text, text, text) to pmpp;

create function @extschema@._raise(sqlstate text, message text, detail text, hint text) returns void
language plpgsql volatile parallel unsafe security invoker
as $$
declare
    -- An error that was raised in Python comes with the name of its class in front.
    plain pg_catalog.text := pg_catalog.regexp_replace(message, '^((plpy|spiexceptions)\.\w+: )+', '');
    fields pg_catalog.text[] := @extschema@._failure(sqlstate, plain, detail, hint);
begin
    -- RAISE takes no field that is null, and one that is empty would be shown.
    if fields[3] is null and fields[4] is null then
        raise using errcode = fields[1], message = fields[2];
    elsif fields[4] is null then
        raise using errcode = fields[1], message = fields[2], detail = fields[3];
    elsif fields[3] is null then
        raise using errcode = fields[1], message = fields[2], hint = fields[4];
    else
        raise using errcode = fields[1], message = fields[2], detail = fields[3], hint = fields[4];
    end if;
end
$$;
comment on function @extschema@._raise(text, text, text, text) is
    'internal: raise the error behind the one that a front has caught';
revoke all on function @extschema@._raise(text, text, text, text) from public;
grant execute on function @extschema@._raise(text, text, text, text) to pmpp;

-- The statement that runs a manifest ($1) and returns rows of a type. It is parsed under the
-- search_path of the caller, as are the names of types that it contains.
create function @extschema@._rows_statement(row_type regtype) returns text
language plpgsql stable parallel unsafe security invoker
as $$
declare
    is_domain pg_catalog.bool;
    base pg_catalog.pg_type;
    columns pg_catalog.text;
    names pg_catalog.text;
    types pg_catalog.oid[];
    -- regtype would say "character" and "bit", which mean types of length 1
    type_name pg_catalog.text := pg_catalog.format_type(row_type, -1);
begin
    with recursive t as (
        select * from pg_catalog.pg_type where oid operator(pg_catalog.=) row_type
        union all
        select b.* from t join pg_catalog.pg_type b on b.oid operator(pg_catalog.=) t.typbasetype
    )
    select * into strict base from t where typbasetype operator(pg_catalog.=) 0;
    is_domain := base.oid operator(pg_catalog.<>) row_type;

    if base.typtype operator(pg_catalog.=) 'p' then
        raise invalid_parameter_value using
            message = pg_catalog.format('the row type must be a named type, not %s', row_type),
            hint = 'Write null::name_of_a_table_or_type, or leave the row type out and write a column definition list.';
    elsif base.typtype operator(pg_catalog.<>) 'c' then
        return pg_catalog.format('select * from @extschema@._rows($1, %L) as (value %s)',
            array[row_type]::pg_catalog.oid[], type_name);
    end if;

    select pg_catalog.string_agg(pg_catalog.format('%I %s', attname, pg_catalog.format_type(atttypid, atttypmod)), ', ' order by attnum),
           pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' order by attnum),
           pg_catalog.array_agg(atttypid order by attnum)
      into columns, names, types
      from pg_catalog.pg_attribute
     where attrelid operator(pg_catalog.=) base.typrelid
       and attnum operator(pg_catalog.>) 0
       and not attisdropped;
    if columns is null then
        raise invalid_parameter_value using
            message = pg_catalog.format('the row type %s has no columns', row_type);
    end if;
    if not is_domain then
        return pg_catalog.format('select * from @extschema@._rows($1, %L) as (%s)', types, columns);
    end if;
    -- RETURN QUERY does not check the constraints of a domain over a composite type: a cast does.
    return pg_catalog.format(
        'select (d.r).* from (select row(%s)::%s as r from @extschema@._rows($1, %L) as (%s) offset 0) d',
        names, type_name, types, columns);
end
$$;
comment on function @extschema@._rows_statement(regtype) is
    'internal: the statement that runs a manifest and returns rows of a type';
revoke all on function @extschema@._rows_statement(regtype) from public;
grant execute on function @extschema@._rows_statement(regtype) to pmpp;
