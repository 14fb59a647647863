-- State: the position in a ring, and the newest time; then the ring, with the time of each unit. An
-- entry that is not there yet, or 0, is free.
local function entry(key, slot)
  local bytes = call('GETRANGE', key, 16 + slot * 8, 23 + slot * 8)
  if #bytes < 8 then return 0 end
  return (unpack('<d', bytes))
end

local function standing(key)
  local head = call('GETRANGE', key, 0, 15)
  if head == '' then return 0, 0 end
  return unpack('<dd', head)
end

-- How many entries from the position on are free: they are the oldest.
local function free_from(key, position, limit, window)
  local free, held = 0, limit + 1
  local reach = 1
  while free < limit and held > limit do
    local offset = math.min(free + reach, limit)
    if entry(key, (position + offset - 1) % limit) <= now - window then
      free, reach = offset, reach * 2
    else
      held = offset
    end
  end
  while held - free > 1 and held <= limit do
    local middle = math.floor((free + held) / 2)
    if entry(key, (position + middle - 1) % limit) <= now - window then
      free = middle
    else
      held = middle
    end
  end
  return free
end

-- The time at which so many units are free, the newest time, and how many units are free now.
local function told(key, position, newest, limit, cost, window)
  local free = newest > now and 0 or free_from(key, position, limit, window)
  local due = newest > now and newest or 0
  local last = math.min(cost, limit)
  if last > 0 then
    local held = entry(key, (position + last - 1) % limit)
    if held > 0 then due = math.max(due, held + window) end
  end
  return pack('<ddd', free, due, newest)
end

local function log(key, at)
  local limit, cost, window = unpack('<ddd', at, 4)
  local position, newest = standing(key)
  local state = told(key, position, newest, limit, cost, window)
  local free = unpack('<d', state)
  if newest > now or cost > free then return state end
  if cost == 0 then return state, '' end
  return state, pack('<ddd', free - cost, 0, now), window
end

local function write(key, position, limit, time, units)
  local ahead = math.min(units, limit - position)
  local bytes = pack('<d', time)
  call('SETRANGE', key, 16 + position * 8, string.rep(bytes, ahead))
  if ahead < units then call('SETRANGE', key, 16, string.rep(bytes, units - ahead)) end
  return (position + units) % limit
end

local function record(key, at, keep)
  local limit, cost = unpack('<dd', at, 4)
  local position = write(key, standing(key), limit, now, cost)
  call('SETRANGE', key, 0, pack('<dd', position, now))
  call('PEXPIREAT', key, expiry(keep))
end
