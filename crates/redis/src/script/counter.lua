-- State: the current epoch, the units of the completed ones that count, and its own; then a ring with
-- the units of each completed epoch.
local function turned(key, width, epochs)
  local head = call('GETRANGE', key, 0, 23)
  local current = (now - now % width) / width
  if head == '' then return head, current, 0, 0, {} end
  local epoch, sum, units = unpack('<ddd', head)
  if current <= epoch then return head, epoch, sum, units end
  local ring = {}
  if current - epoch <= epochs then
    local bytes = call('GETRANGE', key, 24, -1)
    for slot = 0, epochs - 1 do ring[slot] = unpack('<d', bytes, slot * 8 + 1) end
    while epoch < current do
      local slot = epoch % epochs
      sum, ring[slot], units = sum + units - ring[slot], units, 0
      epoch = epoch + 1
    end
  else
    sum = 0
  end
  return head, current, sum, 0, ring
end

local function whole(epoch, sum, units, ring, epochs)
  local parts = { pack('<ddd', epoch, sum, units) }
  for slot = 0, epochs - 1 do parts[slot + 2] = pack('<d', ring[slot] or 0) end
  return table.concat(parts)
end

local function counter(key, at)
  local limit, cost, width, epochs = unpack('<dddd', at, 4)
  local head, epoch, sum, units, ring = turned(key, width, epochs)
  if sum + units + cost > limit then return call('GET', key) end
  if cost == 0 then return call('GET', key), '' end
  units = units + cost
  if ring then
    return head, whole(epoch, sum, units, ring, epochs), (epoch + epochs + 1) * width - now
  end
  -- The state lives as long as its epoch says, whenever in it that was.
  return head, pack('<ddd', epoch, sum, units)
end
