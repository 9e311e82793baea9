-- What the other tests use: the extension, and a server that leads back here.
\set VERBOSITY terse
set client_min_messages = warning;
create extension pmpp cascade;
create extension postgres_fdw;
do $$
begin
    execute format(
        'create server loopback foreign data wrapper postgres_fdw options (host %L, port %L, dbname %L)',
        split_part(current_setting('unix_socket_directories'), ',', 1),
        current_setting('port'),
        current_database());
    execute format('create user mapping for current_user server loopback options (user %L)', current_user);
end
$$;
select extname, nspname from pg_extension e join pg_namespace n on n.oid = extnamespace where extname = 'pmpp';
