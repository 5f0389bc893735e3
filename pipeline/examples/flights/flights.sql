select f.month * 1000000 + row_number() over (order by f.time_hour, f.carrier, f.flight, f.origin) as flight_id,
  f.time_hour + make_interval(mins => f.minute::int) as scheduled, f.carrier, f.origin, f.dest,
  case when f.hour < 9 then 'morning' when f.hour < 15 then 'midday' else 'evening' end as hour_band,
  f.hour::float8 as hour, w.temp, w.humid, w.wind_speed, w.precip, w.visib, w.pressure, (f.arr_delay > 15)::int::smallint as late
from flights f left join weather w on w.origin=f.origin and w.time_hour=f.time_hour
where f.arr_delay is not null and f.time_hour >= %(start)s and f.time_hour < %(end)s
