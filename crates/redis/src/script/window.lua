-- State: the number of a window, the units used in it, and until when the server keeps the state at
-- least, where that is known, or 0. Windows of one length are counted here;
-- for those of a calendar, the caller says which one it takes to be the current.
local function place(at)
  local limit, cost, length, number, start, finish = unpack('<dddddd', at, 4)
  if start < 0 then
    local into = now % length
    number, finish = (now - into) / length, now - into + length
  elseif now < start or now >= finish then
    number = nil
  end
  return limit, cost, length, number, finish
end

local function used_in(state, number, limit)
  if not state then return number, 0 end
  local last, used = unpack('<dd', state)
  if last >= number then return last, used end
  return number, math.max(used - limit * (number - last), 0)
end

local function window(state, at)
  local limit, cost, length, number, finish = place(at)
  local last, used = used_in(state, number, limit)
  if used + cost > limit then return state end
  return state, pack('<ddd', last, used + cost, 0), finish - now + (last - number) * length
end
