"""Who may append what: a table of rights, row-level security by it, and a row's own hash and time checked on entry."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LINE, APPROVAL, PROMOTION, READER = "gatehouse", "gatehouse_approval", "gatehouse_promotion", "gatehouse_reader"
INTO = ("model.promoted", "rollout.requested", "model.deployed", "model.verified", "model.rolled_back")
EVERYBODY = ("policy.judged", "stage.failed", "approval.refused", "notification.sent", "notification.failed")
# A right without an environment is for every environment.
RIGHTS = (
    *((LINE, f"data.{kind}", None) for kind in ("ingested", "validated", "refused")),
    *((LINE, f"model.{kind}", None) for kind in ("trained", "evaluated", "registered")),
    *((LINE, kind, None) for kind in ("run.opened", "drift.measured")),
    *((LINE, kind, "staging") for kind in INTO),
    *((APPROVAL, f"approval.{kind}", "production") for kind in ("decided", "revoked", "delegated")),
    *((APPROVAL, kind, "production") for kind in ("glass.broken", "gate.opened", "package.signed")),
    *((PROMOTION, kind, None) for kind in (*INTO, "projection.repaired", "alarm.raised", "approval.expired")),
    *((role, kind, None) for role in (LINE, APPROVAL, PROMOTION) for kind in EVERYBODY),
)

# What the row says of itself must be so when it enters: nobody can spoil the chain with a hash that does not hold,
# nor record a decision under another time than now (agents' clocks may differ by some minutes).
HOLDS = """
create function gatehouse.must_hold() returns trigger language plpgsql as $$
declare
    hashed text := '{"actor":' || to_json(new.actor)::text || ',"at":' || to_json(new.at)::text
        || ',"body":' || new.body || ',"environment":' || coalesce(to_json(new.environment)::text, 'null')
        || ',"kind":' || to_json(new.kind)::text || ',"model":' || coalesce(to_json(new.model)::text, 'null')
        || ',"previous":' || to_json(new.previous)::text || ',"run":' || coalesce(to_json(new.run)::text, 'null')
        || ',"seq":' || new.seq || '}';
begin
    if json_typeof(new.body::json) <> 'object' then
        raise exception 'the body of row % is no JSON object', new.seq using errcode = 'check_violation';
    end if;
    if new.hash <> 'sha256:' || encode(sha256(convert_to(hashed, 'UTF8')), 'hex') then
        raise exception 'the hash of row % is not that of its content', new.seq using errcode = 'check_violation';
    end if;
    if new.at !~ '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}Z$'
       or abs(extract(epoch from new.at::timestamptz - clock_timestamp())) > 600 then
        raise exception 'row % is dated %, and now it is %', new.seq, new.at, clock_timestamp()
            using errcode = 'check_violation', hint = 'set the clock of the machine that appends it';
    end if;
    return new;
end
$$
"""

# Runs as the ledger's owner, so that no account needs to read the rights.
MAY = """
create function gatehouse.may_append(account name, kind text, environment text) returns boolean
language sql stable security definer set search_path = gatehouse, pg_temp as $$
    select exists (
        select from gatehouse.append_right r
        where r.account = may_append.account and r.kind = may_append.kind
          and (r.environment is null or r.environment = may_append.environment)
    )
$$
"""


def upgrade() -> None:
    """Create the rights, the row-level security that holds accounts to them, and the check of each new row."""
    op.execute(
        "create table gatehouse.append_right (account name not null, kind text not null, environment text, "
        "unique nulls not distinct (account, kind, environment))"
    )
    for role, kind, environment in RIGHTS:
        where = "null" if environment is None else f"'{environment}'"
        op.execute(f"insert into gatehouse.append_right values ('{role}', '{kind}', {where})")
    op.execute(HOLDS)
    op.execute(
        "create trigger holds before insert on gatehouse.event for each row execute function gatehouse.must_hold()"
    )
    op.execute(MAY)
    op.execute("alter table gatehouse.event enable row level security")
    op.execute("alter table gatehouse.event force row level security")
    op.execute("create policy read on gatehouse.event for select using (true)")
    op.execute(
        "create policy append on gatehouse.event for insert "
        "with check (gatehouse.may_append(current_user, kind, environment))"
    )
    # Without these an owner's update would find no row and seem to work; so it meets the trigger that refuses it.
    op.execute("create policy change on gatehouse.event for update using (true)")
    op.execute("create policy removal on gatehouse.event for delete using (true)")
    op.execute("create index event_kind on gatehouse.event (kind, at)")
    for role in (LINE, APPROVAL, PROMOTION, READER):
        rights = "select" if role == READER else "select, insert"
        op.execute(
            f"do $$ begin if exists (select from pg_roles where rolname = '{role}') then "
            f"grant usage on schema gatehouse to {role}; grant {rights} on gatehouse.event to {role}; "
            f"end if; end $$"
        )
