# Which devices the code of an architecture list (CMAKE_CUDA_ARCHITECTURES) runs on. Sets `out` to
# initialisers "{first,last}" of compute capabilities, major * 10 + minor, one for each of the list:
#
#   NN-real  machine code: NN and later ones of the same major number
#   NN       with intermediate code, which is compiled where it runs: NN and all later ones;
#            NN-virtual, that alone, likewise
#   NNf      of a family: as NN-real, whatever follows
#   NNa      of one architecture: NN alone, whatever follows
function(cuda_code out)
  set(rows "")
  foreach(architecture IN LISTS ARGN)
    if(NOT architecture MATCHES "^([0-9]+)[af]?(-real|-virtual)?$")
      message(FATAL_ERROR "CMAKE_CUDA_ARCHITECTURES=${ARGN}: '${architecture}': expected NN, NN-real or NN-virtual")
    endif()
    set(first ${CMAKE_MATCH_1})
    if(architecture MATCHES "[0-9]a")
      set(last ${first})
    elseif(architecture MATCHES "[0-9]f|-real")
      math(EXPR last "${first} / 10 * 10 + 9")
    else()
      set(last INT_MAX)
    endif()
    list(APPEND rows "{${first},${last}}")
  endforeach()
  list(JOIN rows "," rows)
  set(${out} "${rows}" PARENT_SCOPE)
endfunction()
