create function pmpp._tags(key bigint) returns setof pmpp.command_with_result
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].tags(plpy, key)
$$;
comment on function pmpp._tags(bigint) is
    'internal: run a manifest that was handed over, and return the command tags of its queries';

create function pmpp.meta(
    connection text,
    sql_list text[],
    cpu_multiplier double precision default null,
    num_workers integer default null,
    setup_commands text[] default null,
    result_format text default null
)
returns setof pmpp.command_with_result
language plpgsql volatile parallel unsafe security invoker
as $$
declare
    key pg_catalog.int8;
    error pmpp._error;
begin
    key := pmpp._hand_over(array[row(
        connection, sql_list, cpu_multiplier, num_workers, setup_commands, result_format
    )::pmpp.query_manifest]);
    return query select * from pmpp._tags(key);
exception when others or query_canceled or assert_failure then
    get stacked diagnostics error.sqlstate = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint,
        error.schema_name = schema_name, error.table_name = table_name, error.column_name = column_name,
        error.datatype_name = pg_datatype_name, error.constraint_name = constraint_name;
    error := pmpp._raise(key, error);
end
$$;
comment on function pmpp.meta(text, text[], double precision, integer, text[], text) is
    'run statements in parallel, throw their rows away, and return each with its command tag';
