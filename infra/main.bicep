// What topn needs in a resource group: a Batch account, a storage account, who may use them and, if wanted, a pool.
// No account has a key that works: everybody is somebody that Entra ID knows.

@description('What all names begin with: 3 to 17 lower-case letters and digits, unlike any other in Azure.')
@minLength(3)
@maxLength(17)
param name string

@description('Where everything is.')
param location string = resourceGroup().location

@description('Object id of who runs topn by hand, as `az ad signed-in-user show --query id` tells it; empty for nobody.')
param principalId string = ''

@description('What that is.')
@allowed(['User', 'Group', 'ServicePrincipal'])
param principalType string = 'User'

@description('Whether to make a pool that outlives the runs, whose nodes reach blobs by an identity and not by signed URLs.')
param withPool bool = false

@description('VM size of its nodes.')
param vmSize string = 'standard_d2s_v3'

@description('How many Batch tasks run side by side on one of its nodes.')
@minValue(1)
param slotsPerNode int = 2

@description('The most nodes that it has.')
@minValue(1)
param mostNodes int = 4

// Source: Azure built-in roles. The second has jobs and pools, and not the account.
var storageBlobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var azureBatchDataContributor = '6aaa78f1-f7de-44ca-8722-c64a23943cae'

// As many nodes as what waits or runs fills, and none when nothing does.
var formula = 'slots = ${slotsPerNode}; sampled = $PendingTasks.GetSamplePercent(5 * TimeInterval_Minute); waiting = sampled < 70 ? max($PendingTasks.GetSample(1)) : max($PendingTasks.GetSample(5 * TimeInterval_Minute)); $TargetDedicatedNodes = min(${mostNodes}, (waiting + slots - 1) / slots); $NodeDeallocationOption = taskcompletion;'

resource storage 'Microsoft.Storage/storageAccounts@2023-05-01' = {
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

resource batch 'Microsoft.Batch/batchAccounts@2024-07-01' = {
  name: '${name}batch'
  location: location
  properties: {
    allowedAuthenticationModes: ['AAD']
    poolAllocationMode: 'BatchService'
  }
}

// For the machine of a Prefect worker, in Azure.
resource worker 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
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

// For the nodes of a pool that has it: blobs, and nothing of Batch.
resource nodes 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
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

resource pool 'Microsoft.Batch/batchAccounts/pools@2024-07-01' = if (withPool) {
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
    targetNodeCommunicationMode: 'Simplified'
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
