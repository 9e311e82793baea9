-- pmpp: Poor Man's Parallel Processing, version @VERSION@

-- complain if the script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pmpp CASCADE" to load this file. \quit

comment on schema @extschema@ is 'Poor Man''s Parallel Processing: functions that run queries on many connections at once';

-- Whoever is a member of the role pmpp may use the functions. The role stays when the extension
-- is dropped: other databases of the cluster may use it.
do $$
begin
    create role pmpp nologin;
    comment on role pmpp is 'may use the functions of the extension pmpp';
exception
    when duplicate_object then null;
end
$$;

grant usage on schema @extschema@ to pmpp;
