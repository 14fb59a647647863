local function charge_log(key, limit, cost, window)
  local position, newest = standing(key)
  -- Each unit comes when the one a ring ago has left the window, and not before the last.
  for _ = 1, cost do
    local held = entry(key, position)
    if held > 0 then held = held + window end
    newest = math.max(held, now, newest)
    position = write(key, position, limit, newest, 1)
  end
  call('SETRANGE', key, 0, pack('<dd', position, newest))
  call('PEXPIREAT', key, expiry(newest + window - now))
end

local function refund_log(key, limit, cost, window, charged_at)
  if now - charged_at >= window or call('EXISTS', key) == 0 then return end
  local position, newest = standing(key)
  local last = (position + limit - 1) % limit
  -- Debt first. What stood in its place a ring ago may count still.
  while cost > 0 and newest > now do
    call('SETRANGE', key, 16 + last * 8, pack('<d', math.max(newest - window, 0)))
    position, cost = last, cost - 1
    last = (position + limit - 1) % limit
    newest = entry(key, last)
  end
  local units, slot = 0, last
  while units < cost and entry(key, slot) == charged_at do
    units, slot = units + 1, (slot + limit - 1) % limit
  end
  if units == cost and cost > 0 then
    -- They are the last ones: as if they had never been.
    position = (position + limit - cost) % limit
    write(key, position, limit, 0, cost)
    newest = entry(key, (position + limit - 1) % limit)
  elseif cost > 0 then
    local free = free_from(key, position, limit, window)
    local rest = math.min(cost, limit - free)
    if rest > 0 then write(key, (position + free) % limit, limit, 0, rest) end
  end
  call('SETRANGE', key, 0, pack('<dd', position, newest))
end

local function book_log(key, at, refund)
  local limit, cost, window, charged_at, most = unpack('<ddddd', at, 4)
  if refund then
    refund_log(key, limit, math.min(cost, limit), window, charged_at)
  else
    charge_log(key, limit, math.min(cost, most), window)
  end
end
