-- One row per flight that arrived: what was known of it by schedule and weather, and whether it came late.
--
-- Parameters: start (first day), end (first day after). Counts and legs are taken over whole days and weather
-- over its own table, so a flight has the same values whichever window it is read with. Hours of weather ahead
-- stand for the forecast that an airline has when it plans. Nothing here knows a departure or an arrival but `late`.
with planned as (
    select
        make_date(year, month, day) as flight_day,
        make_timestamp(year, month, day, hour, minute, 0) as scheduled,
        carrier, flight, tailnum, origin, dest, distance, hour, time_hour, arr_delay,
        hour * 60 + minute as minute_of_day,
        sched_arr_time / 100 * 60 + sched_arr_time %% 100 as arrival_minute
    from flights
    where make_date(year, month, day) >= %(start)s and make_date(year, month, day) < %(end)s
),

counted as (
    select
        *,
        count(*) over (partition by flight_day) as flights_day,
        count(*) over (partition by flight_day, origin) as origin_day,
        count(*) over (partition by flight_day, origin, hour) as origin_hour,
        count(*) over (partition by flight_day, origin, dest) as route_day,
        count(*) over (partition by flight_day, origin, carrier) as carrier_day,
        count(*) over (partition by flight_day, origin, carrier, hour) as carrier_hour,
        count(*) over (partition by flight_day, dest) as dest_day,
        count(*) over (partition by flight_day, dest, hour) as dest_hour,
        count(*) over (queue range between 60 preceding and current row) as hour_before,
        count(*) over (queue range between current row and 60 following) as hour_ahead,
        count(*) over (queue range between unbounded preceding and current row) as origin_so_far,
        row_number() over aircraft as leg,
        count(*) over (partition by flight_day, tailnum) as legs,
        minute_of_day - lag(minute_of_day) over aircraft as minutes_since_leg,
        lead(minute_of_day) over aircraft - minute_of_day as minutes_to_leg
    from planned
    window
        queue as (partition by flight_day, origin order by minute_of_day),
        aircraft as (partition by flight_day, tailnum order by minute_of_day, arrival_minute, flight, dest collate "C")
),

hourly as (
    select
        origin, time_hour, temp, dewp, humid, wind_gust, precip, pressure, visib, wind_dir,
        case when wind_speed < 200 then wind_speed end as wind_speed  -- mph; one reading says 1,048
    from weather
    where make_date(year, month, day) >= %(start)s::date - 2 and make_date(year, month, day) < %(end)s::date + 2
),

region as (  -- the three airports together
    select
        time_hour,
        round(avg(precip)::numeric, 4) as precip,
        round(avg(visib)::numeric, 4) as visib,
        round(avg(dewp)::numeric, 4) as dewp
    from hourly
    group by time_hour
),

outlook as (
    select
        time_hour,
        precip as region_precip,
        sum(precip) over before as rain_before,
        sum(precip) over ahead as rain_ahead,
        round(avg(visib) over before, 4) as visib_before,
        round(avg(visib) over ahead, 4) as visib_ahead,
        round(avg(dewp) over (order by time_hour range between '24 hours' preceding and current row), 4) as dewp_day
    from region
    window
        before as (order by time_hour range between '6 hours' preceding and current row),
        ahead as (order by time_hour range between current row and '6 hours' following)
)

select
    -- day, carrier, flight number, airport as one number: the same whichever window the flight is read with
    to_char(c.flight_day, 'YYMMDD')::bigint * 1000000000
        + (ascii(c.carrier) %% 64 * 64 + ascii(substr(c.carrier, 2)) %% 64)::bigint * 100000
        + c.flight * 10 + strpos('EJL', left(c.origin, 1)) as flight_id,
    c.scheduled, c.carrier, c.flight::integer as flight, c.tailnum, c.origin, c.dest,
    case when c.hour < 9 then 'morning' when c.hour < 15 then 'midday' else 'evening' end as hour_band,
    c.distance::double precision as distance,
    c.hour::integer as hour,
    extract(isodow from c.scheduled)::integer as weekday,
    c.minute_of_day::integer as minute_of_day,
    ((c.arrival_minute - c.minute_of_day + 1440) %% 1440)::integer as block_minutes,
    c.flights_day::integer as flights_day,
    c.origin_day::integer as origin_day,
    c.origin_hour::integer as origin_hour,
    c.route_day::integer as route_day,
    c.carrier_day::integer as carrier_day,
    c.carrier_hour::integer as carrier_hour,
    c.dest_day::integer as dest_day,
    c.dest_hour::integer as dest_hour,
    c.hour_before::integer as hour_before,
    c.hour_ahead::integer as hour_ahead,
    c.origin_so_far::integer as origin_so_far,
    c.leg::integer as leg,
    c.legs::integer as legs,
    c.minutes_since_leg::integer as minutes_since_leg,
    c.minutes_to_leg::integer as minutes_to_leg,
    h.temp, h.dewp, h.humid, h.wind_speed, h.wind_gust,
    h.wind_speed * sind(h.wind_dir) as wind_east,
    h.wind_speed * cosd(h.wind_dir) as wind_north,
    h.precip, h.pressure, h.visib,
    o.region_precip::double precision as region_precip,
    o.rain_before::double precision as rain_before,
    o.rain_ahead::double precision as rain_ahead,
    o.visib_before::double precision as visib_before,
    o.visib_ahead::double precision as visib_ahead,
    o.dewp_day::double precision as dewp_day,
    (c.arr_delay > 15)::integer::smallint as late
from counted as c
left join hourly as h on h.origin = c.origin and h.time_hour = c.time_hour
left join outlook as o on o.time_hour = c.time_hour
where c.arr_delay is not null
order by c.scheduled, flight_id
