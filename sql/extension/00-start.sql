-- pmpp: Poor Man's Parallel Processing, version @VERSION@

-- complain if the script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pmpp CASCADE" to load this file. \quit

-- The schema is made here, and not named in the control file, so that it is a member of the
-- extension and dropped with it. One that is there and empty was left by pmpp 1.
do $$
begin
    drop schema if exists pmpp;
exception
    when dependent_objects_still_exist then
        raise duplicate_schema using
            message = 'schema "pmpp" exists already and is not empty',
            detail = 'Functions of others in the schema could be called in place of those of the extension.',
            hint = 'Drop its objects or move them to another schema with ALTER ... SET SCHEMA.';
end
$$;
create schema pmpp;
comment on schema pmpp is 'Poor Man''s Parallel Processing: functions that run queries on many connections at once';

-- Whoever is a member of the role pmpp may use the functions. The role stays when the extension
-- is dropped: other databases of the cluster may use it. Its comment says how to drop it.
do $$
begin
    create role pmpp nologin;
    comment on role pmpp is 'may use the functions of the extension pmpp; when no database has it any more: DROP ROLE pmpp';
exception
    when duplicate_object or unique_violation then null; -- the latter if just now, for another database
end
$$;

grant usage on schema pmpp to pmpp;
