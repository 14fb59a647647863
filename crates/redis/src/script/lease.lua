-- The largest of the sizes that leaves room for as many again as there are `parts`.
local SIZES = 8

local function lease_bucket(at, next)
  local units = unpack('<d', at, 4)
  local lead, parts, most = unpack('<ddd', at, 44)
  local full, part = unpack('<dd', next)
  -- As if charged when the lease ends, which is the latest that a unit of it is spent.
  if full < now + lead then full, part = now + lead, 0 end
  for size = 0, SIZES - 1 do
    local n, inc, inc_part = unpack('<ddd', at, 68 + size * 24)
    if n > 0 and full + (inc + 1) * parts + 1 <= now + most then
      full, part = full + inc, part + inc_part
      if part >= units then full, part = full + 1, part - units end
      return n, lead, pack('<ddd', full, part, 0), full - now
    end
  end
end

-- A lease ends with the window, or epoch, that it is counted in.
local function lease_window(at, next)
  local limit, _, _, number, finish = place(at)
  local lead, parts = unpack('<dd', at, 52)
  local last, used = unpack('<dd', next)
  if last ~= number then return end
  for size = 0, SIZES - 1 do
    local n = unpack('<d', at, 68 + size * 8)
    if n > 0 and used + n * parts <= limit then
      return n, math.min(lead, finish - now), pack('<ddd', last, used + n, 0)
    end
  end
end

local function lease_counter(at, next)
  local limit, _, width = unpack('<ddd', at, 4)
  local lead, parts = unpack('<dd', at, 36)
  local epoch, sum, units = unpack('<ddd', next)
  local left = math.min(lead, (epoch + 1) * width - now)
  for size = 0, SIZES - 1 do
    local n = unpack('<d', at, 52 + size * 8)
    if n > 0 and sum + units + n * parts <= limit then
      return n, left, pack('<ddd', epoch, sum, units + n) .. string.sub(next, 25)
    end
  end
end
