create table pmpp.connection_limit (
    connection text primary key,
    max_workers integer not null check (max_workers operator(pg_catalog.>=) 0)
);
comment on table pmpp.connection_limit is
    'the most connections that one call may have open at a time to a server or host';
comment on column pmpp.connection_limit.connection is
    'name of a foreign server or of a host; * for each that has no row of its own';
comment on column pmpp.connection_limit.max_workers is
    'the most connections, whatever a call asks for; 0 if nobody may connect there';
select pg_catalog.pg_extension_config_dump('pmpp.connection_limit', '');
