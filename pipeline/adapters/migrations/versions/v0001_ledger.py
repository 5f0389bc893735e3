"""The ledger: one append-only table, and triggers that refuse every change to it."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLE = """
create table gatehouse.event (
    seq bigint primary key check (seq > 0),
    at text not null,
    kind text not null,
    actor text not null,
    run text,
    model text,
    environment text,
    body text not null,
    previous text not null,
    hash text not null unique
)
"""

REFUSE = """
create function gatehouse.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger is append-only: % refused', tg_op using errcode = 'insufficient_privilege';
end
$$
"""

# Which place the new row takes is decided by the appender under its lock; this holds it to that even
# if a client forgets the lock.
FOLLOWS = """
create function gatehouse.must_follow() returns trigger language plpgsql as $$
declare
    head record;
begin
    select seq, hash into head from gatehouse.event order by seq desc limit 1;
    if new.seq <> coalesce(head.seq, 0) + 1
       or (head.hash is not null and new.previous <> head.hash) then
        raise exception 'row % does not follow the ledger''s head', new.seq using errcode = 'serialization_failure';
    end if;
    return new;
end
$$
"""


def upgrade() -> None:
    """Create the table, its indexes, the triggers and the grants."""
    op.execute(TABLE)
    op.execute("create index event_run on gatehouse.event (run, seq) where run is not null")
    op.execute(
        "create index event_environment on gatehouse.event (model, environment, seq) where environment is not null"
    )
    op.execute(REFUSE)
    op.execute(FOLLOWS)
    op.execute(
        "create trigger no_change before update or delete on gatehouse.event "
        "for each row execute function gatehouse.refuse_change()"
    )
    op.execute(
        "create trigger no_truncate before truncate on gatehouse.event "
        "for each statement execute function gatehouse.refuse_change()"
    )
    op.execute(
        "create trigger follows before insert on gatehouse.event for each row execute function gatehouse.must_follow()"
    )
    for role, rights in (("gatehouse", "select, insert"), ("gatehouse_reader", "select")):
        op.execute(
            f"do $$ begin if exists (select from pg_roles where rolname = '{role}') then "
            f"grant usage on schema gatehouse to {role}; "
            f"grant {rights} on gatehouse.event to {role}; end if; end $$"
        )
