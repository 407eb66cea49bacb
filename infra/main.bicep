// The Azure resources of topn: a Batch account, a storage account, role assignments and, optionally, a pool.
// Access keys are disabled on both accounts. Clients authenticate with Entra ID.

@description('Prefix of all resource names: 3 to 17 lower-case letters and digits, globally unique in Azure.')
@minLength(3)
@maxLength(17)
param name string

@description('Azure region of all resources.')
param location string = resourceGroup().location

@description('Object id of a user, group or service principal that may run topn. For yourself: `az ad signed-in-user show --query id`.')
param principalId string = ''

@description('Type of that principal.')
@allowed(['User', 'Group', 'ServicePrincipal'])
param principalType string = 'User'

@description('Whether to create a permanent pool, whose nodes access blobs with a managed identity instead of signed URLs.')
param withPool bool = false

@description('VM size of the nodes of the permanent pool. The size must run generation 2 images of x64 machines.')
param vmSize string = 'standard_d2as_v5'

@description('Number of Batch tasks that run in parallel on a node of the permanent pool.')
@minValue(1)
param slotsPerNode int = 2

@description('Maximum number of nodes of the permanent pool.')
@minValue(1)
param maxNodes int = 4

// Ids of built-in roles: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
// The Batch role grants access to pools and jobs, but not to the account itself.
var storageBlobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var azureBatchDataContributor = '6aaa78f1-f7de-44ca-8722-c64a23943cae'

// Enough nodes for all pending and running Batch tasks, and none when there are none.
// A new pool has no samples, and reading a sample that does not exist fails the evaluation. The pool then keeps its
// size, so each read is guarded. If samples are late, the last one of the past hour counts.
// Source: https://learn.microsoft.com/azure/batch/batch-automatic-scaling
var formula = 'slots = ${slotsPerNode}; recent = $PendingTasks.GetSamplePercent(5 * TimeInterval_Minute); late = $PendingTasks.GetSamplePercent(60 * TimeInterval_Minute); last = late > 0 ? max(0, $PendingTasks.GetSample(1)) : 0; waiting = recent > 0 ? max(0, $PendingTasks.GetSample(5 * TimeInterval_Minute)) : last; $TargetDedicatedNodes = max(0, min(${maxNodes}, (waiting + slots - 1) / slots)); $NodeDeallocationOption = taskcompletion;'

resource storage 'Microsoft.Storage/storageAccounts@2025-06-01' = {
  name: '${name}storage'
  location: location
  kind: 'StorageV2'
  sku: {
    name: 'Standard_LRS'
  }
  properties: {
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource batch 'Microsoft.Batch/batchAccounts@2025-06-01' = {
  name: '${name}batch'
  location: location
  properties: {
    allowedAuthenticationModes: ['AAD']
    poolAllocationMode: 'BatchService'
  }
}

// The identity of the machine of a Prefect worker in Azure.
resource worker 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${name}-worker'
  location: location
}

resource workerOnStorage 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(storage.id, worker.id, storageBlobDataContributor)
  scope: storage
  properties: {
    principalId: worker.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
  }
}

resource workerOnBatch 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(batch.id, worker.id, azureBatchDataContributor)
  scope: batch
  properties: {
    principalId: worker.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', azureBatchDataContributor)
  }
}

resource principalOnStorage 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(principalId)) {
  name: guid(storage.id, principalId, storageBlobDataContributor)
  scope: storage
  properties: {
    principalId: principalId
    principalType: principalType
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
  }
}

resource principalOnBatch 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(principalId)) {
  name: guid(batch.id, principalId, azureBatchDataContributor)
  scope: batch
  properties: {
    principalId: principalId
    principalType: principalType
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', azureBatchDataContributor)
  }
}

// The identity of the nodes of a pool. It grants access to blobs, but not to Batch.
resource nodes 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${name}-nodes'
  location: location
}

resource nodesOnStorage 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(storage.id, nodes.id, storageBlobDataContributor)
  scope: storage
  properties: {
    principalId: nodes.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
  }
}

resource pool 'Microsoft.Batch/batchAccounts/pools@2025-06-01' = if (withPool) {
  parent: batch
  name: '${name}-pool'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${nodes.id}': {}
    }
  }
  properties: {
    vmSize: vmSize
    taskSlotsPerNode: slotsPerNode
    deploymentConfiguration: {
      virtualMachineConfiguration: {
        imageReference: {
          publisher: 'canonical'
          offer: 'ubuntu-24_04-lts'
          sku: 'server'
          version: 'latest'
        }
        nodeAgentSkuId: 'batch.node.ubuntu 24.04'
      }
    }
    scaleSettings: {
      autoScale: {
        evaluationInterval: 'PT5M'
        formula: formula
      }
    }
  }
}

output batchEndpoint string = 'https://${batch.properties.accountEndpoint}'
output storageEndpoint string = 'https://${storage.name}.blob.${environment().suffixes.storage}'
output workerClientId string = worker.properties.clientId
output poolId string = withPool ? '${name}-pool' : ''
