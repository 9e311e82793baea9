-- pmpp: Poor Man's Parallel Processing, version @VERSION@

-- complain if the script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pmpp CASCADE" to load this file. \quit

-- The script creates the schema, so that it belongs to the extension and is dropped with it. A schema
-- that the control file names would stay. If the schema exists and is empty, pmpp 1 has left it.
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

-- The members of the role pmpp may call the functions. The role stays when the extension is dropped,
-- because other databases of the cluster may use it. Its comment says how to drop it. If the role
-- exists already, it stays as it is, and a warning says who can call the functions because of it.
do $$
declare
    can_log_in boolean;
    members pg_catalog.text;
    detail pg_catalog.text;
begin
    create role pmpp nologin;
    comment on role pmpp is
        'may use the functions of the extension pmpp; when no database has it any more: DROP ROLE pmpp';
exception
    -- A unique_violation means that another session has just created it, for another database.
    when duplicate_object or unique_violation then
        select r.rolcanlogin,
               (select pg_catalog.string_agg(m.name, ', ' order by m.name)
                  from (
                    select pg_catalog.concat(
                               pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.member)),
                               case when pg_catalog.bool_or(a.admin_option) then ' (with ADMIN OPTION)' end)
                      from pg_catalog.pg_auth_members a
                     where a.roleid operator(pg_catalog.=) r.oid
                     group by a.member
                  ) m(name))
          into can_log_in, members
          from pg_catalog.pg_roles r
         where r.rolname operator(pg_catalog.=) 'pmpp';
        detail := pg_catalog.concat_ws(' ',
            'Its members can call the functions of the extension: '
                operator(pg_catalog.||) members operator(pg_catalog.||) '.',
            case when can_log_in then 'The role has LOGIN: whoever connects as pmpp can call them too.' end);
        if can_log_in or members is not null then
            raise warning 'role "pmpp" already exists' using
                detail = detail,
                hint = 'If you did not mean this, use REVOKE pmpp FROM ... and ALTER ROLE pmpp NOLOGIN.';
        end if;
end
$$;
