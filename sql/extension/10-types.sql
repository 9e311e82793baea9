create type pmpp.query_manifest as (
    connection text,
    queries text[],
    cpu_multiplier double precision,
    num_workers integer,
    setup_commands text[],
    result_format text
);
comment on type pmpp.query_manifest is 'a connection and the queries to run on it';
comment on column pmpp.query_manifest.connection is 'connection string, URI, or name of a foreign server';
comment on column pmpp.query_manifest.queries is 'statements to distribute over the connections';
comment on column pmpp.query_manifest.cpu_multiplier is
    'connections to make for each CPU of the remote machine, 1.0 if null; not used if num_workers is set';
comment on column pmpp.query_manifest.num_workers is
    'most connections to make; if null, the remote is asked for its number of CPUs';
comment on column pmpp.query_manifest.setup_commands is 'statements that each connection runs first';
comment on column pmpp.query_manifest.result_format is 'null for the simple query protocol, else text or binary';

create type pmpp.command_with_result as (command text, result text);
comment on type pmpp.command_with_result is 'a statement that returns no rows, and its command tag';

create type pmpp.command_result as (result text);
comment on type pmpp.command_result is 'a command tag';
