-- The ledger's accounts, for a Postgres of your own (15 or newer). Run once as a superuser: psql -f roles.sql
-- Passwords: \password gatehouse_owner, and so on; or certificates, or whatever your pg_hba.conf asks for.
create role gatehouse_owner login;      -- owns the schema; used by migrations only
create role gatehouse login;            -- the line: trains, measures, registers, moves staging
create role gatehouse_approval login;   -- records decisions, opens the gate, signs
create role gatehouse_promotion login;  -- moves production, reconciles
create role gatehouse_reader login;     -- model servers, reports, auditors
create database gatehouse owner gatehouse_owner;
revoke all on database gatehouse from public;
grant connect on database gatehouse to gatehouse, gatehouse_approval, gatehouse_promotion, gatehouse_reader;
