-- Notices and warnings of the remote reach the caller as what they are.
set client_min_messages = notice;
select * from pmpp.distribute(null::pmpp.command_with_result, 'loopback',
    array['do $_$ begin raise warning ''a warning'' using detail = ''Its detail.'', hint = ''Its hint.''; raise notice ''a notice''; raise info ''an info''; end $_$']);
select * from pmpp.meta('loopback', array['create table if not exists pg_class (i int)'], setup_commands => array['do $_$ begin raise notice ''in setup''; end $_$']);
-- with the SQLSTATE, and the names of what they are about
\set VERBOSITY sqlstate
select * from pmpp.meta('loopback', array['do $_$ begin raise notice ''coded'' using errcode = ''01ABC'', table = ''t''; end $_$']);
\set VERBOSITY default
set client_min_messages = warning;
select * from pmpp.distribute(null::pmpp.command_with_result, 'loopback', array['do $_$ begin raise notice ''not shown''; raise warning ''shown''; end $_$']);
