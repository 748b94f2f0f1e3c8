# Finds what the CUDA backend is made with: the toolkit (cuBLAS with it) and cuDNN; and NCCL, which
# the communicator can do without. Sets HAVE_CUDA and HAVE_NCCL to 0 or 1, CUDA_SOURCES, the targets
# CUDNN and NCCL, CUDA_CODE to the devices that there will be code for, and CUDA_MISSING to what there
# is not.

set(HAVE_CUDA 0)
set(HAVE_NCCL 0)
set(CUDA_MISSING "")

function(cuda_find_library target header library)
  find_path(${target}_INCLUDE ${header} HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(${target}_LIBRARY ${library} HINTS ${CUDAToolkit_LIBRARY_DIR})
  if(${target}_INCLUDE AND ${target}_LIBRARY)
    add_library(${target} INTERFACE IMPORTED)
    target_include_directories(${target} SYSTEM INTERFACE ${${target}_INCLUDE})
    target_link_libraries(${target} INTERFACE ${${target}_LIBRARY})
  endif()
endfunction()

find_package(CUDAToolkit 12 QUIET)
if(NOT CUDAToolkit_FOUND)
  set(CUDA_MISSING "the CUDA toolkit, 12 or newer")
  return()
endif()
if(NOT CMAKE_CUDA_COMPILER AND CUDAToolkit_NVCC_EXECUTABLE)
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
endif()
cuda_find_library(CUDNN cudnn.h cudnn)
cuda_find_library(NCCL nccl.h nccl)
if(NOT TARGET CUDNN)
  set(CUDA_MISSING "cuDNN")
  return()
endif()

# The plans describe devices to cuDNN's heuristics, which it can be told since 9.
file(STRINGS ${CUDNN_INCLUDE}/cudnn_graph.h properties REGEX "CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP")
if(NOT properties)
  set(CUDA_MISSING "a cuDNN with CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP")
  return()
endif()
file(STRINGS ${CUDNN_INCLUDE}/cudnn_version.h parts REGEX "#define CUDNN_(MAJOR|MINOR) ")
string(REGEX REPLACE "[^0-9;]" "" parts "${parts}")
list(JOIN parts "." CUDNN_VERSION)

# Machine code for each, and intermediate code of the last for what comes after it.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  if(CUDAToolkit_VERSION VERSION_LESS 12.8)
    set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90)
  else()
    set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100-real 120)
  endif()
endif()
set(CMAKE_CUDA_STANDARD 17)
enable_language(CUDA)
if(CMAKE_CUDA_ARCHITECTURES MATCHES "^(all|all-major|native)$") # in numbers, which CMake knows
  string(TOUPPER ${CMAKE_CUDA_ARCHITECTURES} name)
  string(REPLACE "-" "_" name ${name})
  set(CMAKE_CUDA_ARCHITECTURES ${CMAKE_CUDA_ARCHITECTURES_${name}})
endif()
include(${CMAKE_CURRENT_LIST_DIR}/code.cmake)
cuda_code(CUDA_CODE ${CMAKE_CUDA_ARCHITECTURES})

set(HAVE_CUDA 1)
if(TARGET NCCL)
  set(HAVE_NCCL 1)
endif()
set(CUDA_SOURCES backend_cuda.c block.c check.c connect.c conv.c conv_direct.c conv_graph.c conv_plan.c conv_tune.c
  dense.c devices.c memory.c norm.c operations.c rates.c sparse_conv.c sparse_conv_lists.c sparse_conv_model.c
  sparse_dense.c sparse_lists.c sparse_model.c steps.c)
set(CUDA_KERNELS columns.cu conv_direct.cu conv_filter.cu conv_planes.cu dropconnect.cu epilogue.cu pointwise.cu
  small_product.cu sparse.cu sparse_conv.cu survivors.cu update.cu)
list(TRANSFORM CUDA_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
list(TRANSFORM CUDA_KERNELS PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
